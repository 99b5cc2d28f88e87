"""GPT-2's linear layers, which keep their weights the other way round."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def replace_conv1d(model: PreTrainedModel) -> None:
    """Replace them by linear layers with the same weights, since it is those that are laid out for a processor."""
    for parent in model.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, Conv1D):
                setattr(parent, name, _linear(layer.weight, layer.bias))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """Return the layer of a weight, [in, out], and a bias, [out]."""
    in_features, out_features = weight.shape
    linear = nn.Linear(in_features, out_features, device="meta")
    linear.weight, linear.bias = nn.Parameter(weight.detach().T.contiguous()), nn.Parameter(bias.detach())
    return linear
