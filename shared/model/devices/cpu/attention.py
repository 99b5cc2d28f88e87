"""Attention over the slots, on its own and in the form that transformers calls."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from shared.errors import ModelError
from shared.model.devices.cpu.batch import BLOCK_ROWS, Batch

NAME = "outrider"


def attend(
    query: torch.Tensor,  # [rows, heads, head_dim]
    key: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    value: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    batch: Batch,
    scaling: float | None,
) -> torch.Tensor:
    """Let each span of the batch attend to the first keys of its slot. Returns [rows, heads, head_dim].

    Heads that share a key are laid out as adjacent rows, so that no key is copied.
    """
    _, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    shape = (-1, BLOCK_ROWS, kv_heads, heads // kv_heads, head_dim)
    places = query.index_select(0, batch.into_blocks)  # [blocks * BLOCK_ROWS, heads, head_dim]
    blocks = places.view(shape).transpose(1, 2).flatten(2, 3)  # [blocks, kv_heads, BLOCK_ROWS * group, head_dim]
    attended = attend_blocks(blocks, key, value, batch, scaling)
    split = attended.view(-1, kv_heads, BLOCK_ROWS, heads // kv_heads, head_dim).transpose(1, 2)
    return split.reshape(-1, heads, head_dim).index_select(0, batch.from_blocks)


def attend_blocks(
    blocks: torch.Tensor,  # [blocks, kv_heads, BLOCK_ROWS * group, head_dim]
    key: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    value: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    batch: Batch,
    scaling: float | None,
) -> torch.Tensor:
    """Let the blocks of each span attend to the first keys of its slot. Returns the shape of `blocks`."""
    attended = [
        scaled_dot_product_attention(
            blocks[span.blocks],
            key[span.slot, :, : span.num_keys].expand(span.blocks.stop - span.blocks.start, -1, -1, -1),
            value[span.slot, :, : span.num_keys].expand(span.blocks.stop - span.blocks.start, -1, -1, -1),
            attn_mask=span.mask,
            scale=scaling,
        )
        for span in batch.spans
    ]
    return attended[0] if len(attended) == 1 else torch.cat(attended)


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, heads, rows, head_dim]
    key: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    value: torch.Tensor,  # [slots, kv_heads, max_length, head_dim]
    attention_mask: torch.Tensor | None,
    *,
    batch: Batch,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' attention functions do. Returns [1, rows, heads, head_dim].

    Raises ModelError for attention that is not supported: sliding windows, soft caps, sinks.
    """
    unknown = [name for name in ("sliding_window", "softcap", "s_aux") if options.get(name) is not None]
    if unknown or attention_mask is not None:
        raise ModelError(f"{type(module).__name__} attends with {unknown or 'a mask of its own'}: not supported")
    return attend(query[0].transpose(0, 1), key, value, batch, scaling)[None], None


AttentionInterface.register(NAME, slot_attention)
