"""Replaces a model's linear layers with a kernel's."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from transformers import PreTrainedModel

from shared.model.checkpoints.rounded_models import linears
from shared.model.devices.cpu.exactness.proof import Proof, output_layer, size_of
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT


def repack(model: PreTrainedModel, proof: Proof) -> None:
    """Make the model's linear layers use the proved kernel, in blocks of the proved sizes.

    The rest of the model is converted to the type of the kernel's activations.
    """
    head, activations = output_layer(model), proof.kernel.activations

    def place(at: tuple[nn.Module, str, nn.Linear]) -> None:
        parent, name, linear = at
        layer = proof.packed.get(linear) or proof.kernel.pack(linear)
        layer.counts = proof.of_layers.get(size_of(linear, head), ANY_COUNT)
        setattr(parent, name, layer)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # packing a layer takes one thread, without the GIL
        list(threads.map(place, linears(model)))
    model.set_input_embeddings(_Embedding(model.get_input_embeddings(), activations))
    kept = {id(weight) for layer in model.modules() if isinstance(layer, KernelLinear) for weight in layer.parameters()}
    for name, parameter in model.named_parameters():
        if "embedding" not in name and id(parameter) not in kept:
            parameter.data = parameter.data.to(activations)


class _Embedding(nn.Module):
    """Token embeddings that are stored in one type and returned in another."""

    def __init__(self, embedding: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding, self._dtype = embedding, dtype

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Look up. token_ids: [..., rows]; returns [..., rows, hidden]."""
        embedded: torch.Tensor = self.embedding(token_ids)
        return embedded.to(self._dtype)
