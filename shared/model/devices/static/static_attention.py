"""Attention in a graph of fixed shapes, in the form that transformers calls."""

from typing import Any

import torch
from transformers import AttentionInterface

from shared.errors import ModelError
from shared.model.devices.static.static_cache import Batch

NAME = "outrider_static"


def static_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, heads, T, head_dim]
    key: torch.Tensor,  # [B, kv_heads, num_keys, head_dim]
    value: torch.Tensor,  # [B, kv_heads, num_keys, head_dim]
    attention_mask: torch.Tensor | None,
    *,
    batch: Batch,
    scaling: float,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend, with the softmax in float32. Returns [B, T, heads, head_dim].

    Heads that share a key are laid out as adjacent rows, so that no key is copied.

    Raises ModelError for attention that is not supported: sliding windows, soft caps, sinks.
    """
    unknown = [name for name in ("sliding_window", "softcap", "s_aux") if options.get(name) is not None]
    if unknown or attention_mask is not None:
        raise ModelError(f"{type(module).__name__} attends with {unknown or 'a mask of its own'}: not supported")
    num_slots, heads, num_rows, head_dim = query.shape
    kv_heads, num_keys = key.shape[1:3]
    grouped = query.reshape(num_slots, kv_heads, -1, head_dim)  # [B, kv_heads, group * T, head_dim]
    scores = (grouped @ key.transpose(2, 3)).float() * scaling  # [B, kv_heads, group * T, num_keys]
    masked = scores.view(num_slots, kv_heads, -1, num_rows, num_keys) + batch.mask[:, :, None]
    weights = masked.softmax(-1).flatten(2, 3).to(value.dtype)  # [B, kv_heads, group * T, num_keys]
    attended = (weights @ value).view(num_slots, heads, num_rows, head_dim)
    return attended.transpose(1, 2), None


AttentionInterface.register(NAME, static_attention)
