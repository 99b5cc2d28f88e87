"""Rotates what flows between a model's layers, so that 8 bits hold it better: QuaRot (arXiv 2404.00456).

A few channels of a language model's activations are a hundred times larger than the rest, and a row rounded to its
largest magnitude keeps little of the others. A rotation spreads each channel over many. The weights take it over, as
they take over the norms' weights before it; so the rotated model computes the same, up to rounding, at no cost.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from shared.model.checkpoints.supported import FAMILY

_LARGEST_BLOCK = 512


def is_rotated(model: PreTrainedModel) -> bool:
    """Whether models of this kind are rotated: the inputs of all linear layers but the down projections."""
    return model.config.model_type in FAMILY


def rotated_parts(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Rotate a model in place, and yield each of its parts when its weights, in float32 then, are final.

    The output layer must not be tied to the embeddings. Every processor computes the same bits: sums and differences
    of two numbers, in a fixed order. A model that is not rotated is its own only part.
    """
    if not is_rotated(model):
        yield model
        return
    base: Any = model.model
    embeddings = base.embed_tokens.weight
    embeddings.data = rotated(embeddings.data.float()).to(embeddings.dtype)
    for layer in base.layers:
        layer.float()
        attention, mlp = layer.self_attn, layer.mlp
        _turn_inputs(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
        _turn_inputs(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
        _turn_outputs(attention.v_proj, attention.head_dim)
        attention.o_proj.weight.data = rotated(attention.o_proj.weight.data, attention.head_dim)
        _turn_outputs(attention.o_proj)
        _turn_outputs(mlp.down_proj)
        yield layer
    model.lm_head.float()
    _turn_inputs(base.norm.float(), model.lm_head)
    yield model


def _turn_inputs(norm: Any, *linears: nn.Linear) -> None:
    """Give the norm's weight, [in], and the rotation to the layers behind it."""
    for linear in linears:
        linear.weight.data = rotated(linear.weight.data * norm.weight.data)
    norm.weight.data = torch.ones_like(norm.weight.data)


def _turn_outputs(linear: nn.Linear, size: int = 0) -> None:
    """Rotate a layer's outputs, in blocks of `size` if it is given."""
    linear.weight.data = rotated(linear.weight.data.T.contiguous(), size).T.contiguous()
    if linear.bias is not None:
        linear.bias.data = rotated(linear.bias.data, size)


def rotated(x: torch.Tensor, size: int = 0) -> torch.Tensor:
    """Multiply each block of the last dimension by a Hadamard matrix, which is its own inverse. x: [..., n] float32.

    Blocks are as large as the powers of two that divide n, or `size`, allow.
    """
    size = size or x.shape[-1]
    block = min(size & -size, _LARGEST_BLOCK)
    y, half = x.clone(), 1
    while half < block:
        left, right = y.view(-1, 2, half).unbind(1)  # [pairs, half] each
        total = left + right
        torch.sub(left, right, out=right)
        left.copy_(total)
        half *= 2
    return y.mul_(block**-0.5)
