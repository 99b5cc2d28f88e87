"""Which kernels a model's linear layers run by, on this processor."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from transformers import PreTrainedModel

from shared.model.engine_settings import Quant
from shared.model.half_linear import HalfLinear
from shared.model.int8_linear import Int8Linear
from shared.model.packed_linear import PackedLinear


def activation_dtype(dtype: torch.dtype, quant: Quant = "none") -> torch.dtype:
    """Return the type that activations have when weights have this one: where bfloat16 is slow, float32."""
    in_float32 = quant == "int8" or not torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 - the only door to it
    return torch.float32 if in_float32 else dtype


def packed(linear: nn.Linear) -> nn.Module:
    """Return the layer with the same weights, laid out for this processor."""
    dtype = linear.weight.dtype
    return PackedLinear(linear) if activation_dtype(dtype) is dtype else HalfLinear(linear)


def repack(model: PreTrainedModel, quant: Quant) -> None:
    """Replace the model's linear layers, and give the rest of it the type of their activations.

    Rounded weights, `int8`, are for drafts alone.
    """
    dtype = activation_dtype(model.dtype, quant)

    def pack(place: tuple[nn.Module, str]) -> None:
        parent, name = place
        linear = getattr(parent, name)
        setattr(parent, name, Int8Linear(linear) if quant == "int8" else packed(linear))

    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # a layer is packed by one thread, without the GIL
        list(threads.map(pack, places))
    model.set_input_embeddings(_Embedding(model.get_input_embeddings(), dtype))
    for name, parameter in model.named_parameters():
        if "embedding" not in name:
            parameter.data = parameter.data.to(dtype)


class _Embedding(nn.Module):
    """Token embeddings that are kept in one type and given in another."""

    def __init__(self, embedding: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding, self._dtype = embedding, dtype

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Look up. token_ids: [..., rows]; returns [..., rows, hidden]."""
        embedded: torch.Tensor = self.embedding(token_ids)
        return embedded.to(self._dtype)
