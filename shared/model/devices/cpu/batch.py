"""One forward pass: which rows run, for which slots, at which positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from shared.model.devices.cpu.kernels.row_counts import RowCounts
from shared.model.runner import Segment

BLOCK_ROWS = 4  # queries in every attention product: always the same number, since the rows' bits depend on it
KEY_GRAIN = 64  # the number of keys in an attention product is a multiple of this

# 0 where a query sees a key. By numpy: what torch does in parallel here would give the importing thread a team of
# threads, beside which those of the thread that computes sleep between products.
_TRIANGLE = torch.from_numpy(np.triu(np.full((KEY_GRAIN, KEY_GRAIN), -np.inf, np.float32), 1))


@dataclass(frozen=True)
class Span:
    """Rows of one session that attend to the same number of keys, in blocks of BLOCK_ROWS."""

    slot: int
    start: int
    size: int  # in rows
    num_keys: int
    blocks: slice  # which of the batch's blocks
    group: int
    dtype: torch.dtype

    @cached_property
    def mask(self) -> torch.Tensor:
        """Return 0 where a query sees a key, or -inf. [blocks, 1, BLOCK_ROWS * group, num_keys]."""
        return _mask(self.start, self.size, self.num_keys, self.group, self.dtype)


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
        lengths = [len(segment.token_ids) for segment in segments]
        num_rows = counts.pad(sum(lengths))
        token_ids = np.concatenate([np.array(segment.token_ids, np.int64) for segment in segments])
        positions = [np.arange(at.start, at.start + length) for at, length in zip(segments, lengths, strict=True)]
        slots = np.repeat([segment.slot for segment in segments], lengths)
        ends = zip(segments, accumulate(lengths), strict=True)
        kept = np.concatenate([np.arange(end - segment.num_logits, end) for segment, end in ends])
        kept = kept if len(kept) else np.zeros(1, np.int64)
        spans: list[Span] = []
        into_blocks: list[NDArray[np.int64]] = []
        from_blocks: list[NDArray[np.int64]] = []
        first, block = 0, 0
        for segment, length in zip(segments, lengths, strict=True):
            start, end = segment.start, segment.start + length
            while start < end:
                num_keys = (start // KEY_GRAIN + 1) * KEY_GRAIN
                size = min(end, num_keys) - start
                blocks = slice(block, block - (-size // BLOCK_ROWS))
                spans.append(Span(segment.slot, start, size, num_keys, blocks, group, dtype))
                into = np.full((blocks.stop - block) * BLOCK_ROWS, first)
                into[:size] += np.arange(size)
                into_blocks.append(into)
                from_blocks.append(np.arange(block * BLOCK_ROWS, block * BLOCK_ROWS + size))
                start, first, block = start + size, first + size, blocks.stop
        return cls(
            _repeated(token_ids, num_rows),
            _repeated(np.concatenate(positions), num_rows),
            _repeated(slots, num_rows),
            _repeated(kept, head_counts.pad(len(kept))),
            spans,
            torch.from_numpy(np.concatenate(into_blocks)),
            _repeated(np.concatenate(from_blocks), num_rows),
        )


def _repeated(column: NDArray[np.int64], size: int) -> torch.Tensor:
    """Return a column with its last value repeated until it has this size."""
    return torch.from_numpy(column[np.minimum(np.arange(size), len(column) - 1)])


def _mask(start: int, size: int, num_keys: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the mask of a span, [blocks, 1, BLOCK_ROWS * group, keys]; padding queries see only the first key.

    All positions of a span lie in the last of its grains, so only that one has keys which some of them do not see.
    """
    num_blocks = -(-size // BLOCK_ROWS)
    mask = torch.zeros(num_blocks * BLOCK_ROWS, group, num_keys, dtype=dtype)
    first = start % KEY_GRAIN
    mask[:size, :, -KEY_GRAIN:] = _TRIANGLE[first : first + size, None].to(dtype)
    mask[size:, :, 1:] = -torch.inf
    return mask.view(num_blocks, 1, BLOCK_ROWS * group, num_keys)
