"""A pass is laid out as its rows say, one by one."""

import random
from itertools import groupby

import pytest
import torch

from shared.model.devices.cpu.batch import BLOCK_ROWS, KEY_GRAIN, Batch
from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT, RowCounts
from shared.model.runner import Segment

GROUP = 3


def segments(rng: random.Random, sizes: list[int]) -> list[Segment]:
    """Return segments of these sizes in slots of their own, of which some rows are wanted."""
    slots = rng.sample(range(20), len(sizes))
    return [
        Segment(slot, rng.randrange(200), [rng.randrange(1000) for _ in range(size)], rng.choice((0, 1, size)))
        for slot, size in zip(slots, sizes, strict=True)
    ]


def mask_of(positions: list[int], num_keys: int) -> torch.Tensor:
    """Return the mask of a span's queries, each beside the others that share its keys."""
    padded = positions + [0] * (-len(positions) % BLOCK_ROWS)
    rows = [[0.0 if key <= at else -torch.inf for key in range(num_keys)] for at in padded for _ in range(GROUP)]
    return torch.tensor(rows).view(-1, 1, BLOCK_ROWS * GROUP, num_keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("counts", [ANY_COUNT, RowCounts([1, 8, 32])], ids=["any", "some"])
@pytest.mark.parametrize("sizes", [[1], [8], [5, 1, 9], [150, 3]], ids=str)
def test_a_batch_is_its_rows(sizes: list[int], counts: RowCounts, dtype: torch.dtype) -> None:
    """Each tensor is what going through the rows gives."""
    for seed in range(5):
        asked = segments(random.Random(seed), sizes)
        batch = Batch.of(asked, counts, counts, GROUP, dtype)
        rows = [(t, at.start + i, at.slot) for at in asked for i, t in enumerate(at.token_ids)]
        wanted = [i >= len(at.token_ids) - at.num_logits for at in asked for i in range(len(at.token_ids))]
        kept = [i for i, is_wanted in enumerate(wanted) if is_wanted] or [0]
        kept += kept[-1:] * (counts.pad(len(kept)) - len(kept))
        padding = counts.pad(len(rows)) - len(rows)
        columns = (batch.token_ids, batch.positions, batch.slots, batch.kept, batch.into_blocks, batch.from_blocks)
        assert {column.dtype for column in columns} == {torch.int64}
        assert list(zip(*(column.tolist() for column in columns[:3]), strict=True)) == rows + rows[-1:] * padding
        assert batch.kept.tolist() == kept
        assert {column.dtype for column in (*columns, batch.kept, batch.into_blocks, batch.from_blocks)} == {
            torch.int64
        }
        places: list[int] = []
        into: list[int] = []
        spans = [(key, [row[1] for row in of]) for key, of in groupby(rows, lambda row: (row[2], row[1] // KEY_GRAIN))]
        for span, ((slot, grain), positions) in zip(batch.spans, spans, strict=True):
            num_keys, num_blocks = (grain + 1) * KEY_GRAIN, -(-len(positions) // BLOCK_ROWS)
            assert (span.slot, span.num_keys) == (slot, num_keys)
            assert span.blocks == slice(len(into) // BLOCK_ROWS, len(into) // BLOCK_ROWS + num_blocks)
            assert span.mask.dtype is dtype
            assert span.mask.equal(mask_of(positions, num_keys).to(dtype))
            first = len(places)
            places += range(len(into), len(into) + len(positions))
            into += range(first, first + len(positions))
            into += [first] * (num_blocks * BLOCK_ROWS - len(positions))
        assert batch.into_blocks.tolist() == into
        assert batch.from_blocks.tolist() == places + places[-1:] * padding
