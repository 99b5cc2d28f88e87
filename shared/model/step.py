"""One forward pass: which rows run, for which slots, at which positions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch

BLOCK_ROWS = 8  # queries of one attention product, always: its rows' bits depend on their number
KEY_GRAIN = 64  # keys of one attention product, in multiples of this


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one session to run: `token_ids` stand at `start` and on, in `slot`.

    The logits of the last `num_logits` of them are wanted.
    """

    slot: int
    start: int
    token_ids: Sequence[int]
    num_logits: int


@dataclass(frozen=True)
class Span:
    """Rows of one session that attend to the same number of keys: `rows` of the step, in blocks of BLOCK_ROWS."""

    slot: int
    rows: slice
    num_keys: int
    visible: torch.Tensor  # [blocks, 1, BLOCK_ROWS, num_keys] bool: which keys a row sees


@dataclass(frozen=True)
class Step:
    """The rows of all segments, one after the other, and how they attend.

    How many keys a row is computed with is a function of its position alone, and so is all else of its arithmetic:
    that is why a row's bits do not depend on what runs beside it.
    """

    token_ids: torch.Tensor  # [rows] int64
    positions: torch.Tensor  # [rows] int64
    slots: torch.Tensor  # [rows] int64
    kept: torch.Tensor  # [kept] int64, the rows whose logits are wanted, then padding
    spans: list[Span] = field(default_factory=list)

    @classmethod
    def of(cls, segments: Sequence[Segment], pad: Callable[[int], int]) -> "Step":
        """Lay out the segments. `pad` gives the number of rows to run for so many: the last one is run repeatedly."""
        rows = [
            (token_id, segment.start + i, segment.slot, i >= len(segment.token_ids) - segment.num_logits)
            for segment in segments
            for i, token_id in enumerate(segment.token_ids)
        ]
        rows += rows[-1:] * (pad(len(rows)) - len(rows))
        token_ids, positions, slots, wanted = (torch.tensor(column) for column in zip(*rows, strict=True))
        kept = wanted.nonzero().flatten().tolist() or [0]
        kept += kept[-1:] * (pad(len(kept)) - len(kept))
        spans = []
        first = 0
        for (slot, grain), group in groupby(rows, key=lambda row: (row[2], row[1] // KEY_GRAIN)):
            end = first + sum(1 for _ in group)
            num_keys = (grain + 1) * KEY_GRAIN
            spans.append(Span(slot, slice(first, end), num_keys, _visible(positions[first:end], num_keys)))
            first = end
        return cls(token_ids, positions, slots, torch.tensor(kept), spans)


def _visible(positions: torch.Tensor, num_keys: int) -> torch.Tensor:
    """Return which keys each row sees, padding rows seeing the first one. positions: [rows]."""
    num_blocks = -(-len(positions) // BLOCK_ROWS)
    padded = torch.zeros(num_blocks * BLOCK_ROWS, dtype=positions.dtype)
    padded[: len(positions)] = positions
    visible = torch.arange(num_keys) <= padded[:, None]
    return visible.view(num_blocks, 1, BLOCK_ROWS, num_keys)
