"""One forward pass: which rows run, for which slots, at which positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from shared.model.devices.cpu.kernels.row_counts import RowCounts
from shared.model.runner import Segment

BLOCK_ROWS = 8  # queries in every attention product: always the same number, since the rows' bits depend on it
KEY_GRAIN = 64  # the number of keys in an attention product is a multiple of this


@dataclass(frozen=True)
class Span:
    """Rows of one session that attend to the same number of keys, in blocks of BLOCK_ROWS."""

    slot: int
    num_keys: int
    blocks: slice  # which of the batch's blocks
    mask: torch.Tensor  # [blocks, 1, BLOCK_ROWS * group, num_keys] float, 0 where a query sees a key, or -inf


@dataclass(frozen=True)
class Batch:
    """The rows of all segments, one after the other, and how they attend.

    The number of keys that a row is computed with depends only on its position, and so does the rest of its
    arithmetic: this is why a row's bits do not depend on what runs beside it.
    """

    token_ids: torch.Tensor  # [rows] int64
    positions: torch.Tensor  # [rows] int64
    slots: torch.Tensor  # [rows] int64
    kept: torch.Tensor  # [kept] int64, the rows whose logits are wanted, then padding
    spans: list[Span]
    into_blocks: torch.Tensor  # [blocks * BLOCK_ROWS] int64, the row that stands at each place of the blocks
    from_blocks: torch.Tensor  # [rows] int64, the place of each row

    @classmethod
    def of(
        cls, segments: Sequence[Segment], counts: RowCounts, head_counts: RowCounts, group: int, dtype: torch.dtype
    ) -> "Batch":
        """Lay out the segments.

        To reach a number of rows that `counts` allows, the last row is repeated; so is the last row whose logits are
        wanted, for `head_counts`. `group` is how many query heads share a key; `dtype` is the type of activations.
        """
        rows = [
            (token_id, segment.start + i, segment.slot, i >= len(segment.token_ids) - segment.num_logits)
            for segment in segments
            for i, token_id in enumerate(segment.token_ids)
        ]
        spans: list[Span] = []
        into_blocks: list[int] = []
        from_blocks: list[int] = []
        for (slot, grain), grouped in groupby(rows, key=lambda row: (row[2], row[1] // KEY_GRAIN)):
            positions = [row[1] for row in grouped]
            first, place = len(from_blocks), len(into_blocks)
            num_blocks = -(-len(positions) // BLOCK_ROWS)
            from_blocks += range(place, place + len(positions))
            into_blocks += range(first, first + len(positions))
            into_blocks += [first] * (num_blocks * BLOCK_ROWS - len(positions))
            blocks = slice(place // BLOCK_ROWS, place // BLOCK_ROWS + num_blocks)
            num_keys = (grain + 1) * KEY_GRAIN
            spans.append(Span(slot, num_keys, blocks, _mask(positions, num_blocks, num_keys, group).to(dtype)))
        padding = counts.pad(len(rows)) - len(rows)
        rows += rows[-1:] * padding
        from_blocks += from_blocks[-1:] * padding
        kept = [i for i, row in enumerate(rows[: len(rows) - padding]) if row[3]] or [0]
        kept += kept[-1:] * (head_counts.pad(len(kept)) - len(kept))
        token_ids, at, slots, _ = (torch.tensor(column) for column in zip(*rows, strict=True))
        places = torch.tensor(into_blocks), torch.tensor(from_blocks)
        return cls(token_ids, at, slots, torch.tensor(kept), spans, *places)


def _mask(positions: Sequence[int], num_blocks: int, num_keys: int, group: int) -> torch.Tensor:
    """Return the mask of a span, [blocks, 1, BLOCK_ROWS * group, keys]; padding queries see only the first key."""
    padded = torch.zeros(num_blocks * BLOCK_ROWS, 1, dtype=torch.int64)
    padded[: len(positions), 0] = torch.tensor(positions)
    visible = (torch.arange(num_keys) <= padded).repeat_interleave(group, 0)  # [blocks * BLOCK_ROWS * group, num_keys]
    mask = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)
    return mask.view(num_blocks, 1, BLOCK_ROWS * group, num_keys)
