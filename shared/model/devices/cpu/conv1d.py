"""GPT-2's linear layers, which store their weights transposed."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def replace_conv1d(model: PreTrainedModel) -> None:
    """Replace them with linear layers with the same weights, since only those are laid out for a processor."""
    for parent in model.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, Conv1D):
                setattr(parent, name, _linear(layer.weight, layer.bias))


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """Return the layer with this weight, [in, out], and bias, [out]."""
    in_features, out_features = weight.shape
    linear = nn.Linear(in_features, out_features, device="meta")
    linear.weight, linear.bias = nn.Parameter(weight.detach().T.contiguous()), nn.Parameter(bias.detach())
    return linear
