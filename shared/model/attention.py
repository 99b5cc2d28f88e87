"""Attention over the slots, as transformers calls it."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from shared.errors import ModelError
from shared.model.step import BLOCK_ROWS, Step

NAME = "outrider"


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, heads, rows, head_dim]
    key: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    value: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    attention_mask: torch.Tensor | None,
    *,
    step: Step,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend, each span of the step to the first keys of its slot. Returns [1, rows, heads, head_dim].

    The heads that share a key are put beside each other as rows, so that no key is copied.
    Raises ModelError for an attention that this is not: sliding windows, soft caps, sinks.
    """
    unknown = [name for name in ("sliding_window", "softcap", "s_aux") if options.get(name) is not None]
    if unknown or attention_mask is not None:
        raise ModelError(f"{type(module).__name__} attends with {unknown or 'a mask of its own'}: not supported")
    _, heads, rows, head_dim = query.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    output = query.new_empty(rows, heads, head_dim)
    for span in step.spans:
        num_rows = span.rows.stop - span.rows.start
        num_blocks = span.visible.shape[0]
        padded = query.new_zeros(num_blocks * BLOCK_ROWS, heads, head_dim)
        padded[:num_rows] = query[0, :, span.rows].transpose(0, 1)
        blocks = padded.view(num_blocks, BLOCK_ROWS, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
        attended = scaled_dot_product_attention(
            blocks.reshape(num_blocks, kv_heads, group * BLOCK_ROWS, head_dim),
            key[span.slot, :, : span.num_keys].expand(num_blocks, -1, -1, -1),
            value[span.slot, :, : span.num_keys].expand(num_blocks, -1, -1, -1),
            attn_mask=span.visible.repeat(1, 1, group, 1),
            scale=scaling,
        )
        attended = attended.view(num_blocks, kv_heads, group, BLOCK_ROWS, head_dim).permute(0, 3, 1, 2, 4)
        output[span.rows] = attended.reshape(num_blocks * BLOCK_ROWS, heads, head_dim)[:num_rows]
    return output[None], None


AttentionInterface.register(NAME, slot_attention)
