"""Proofs that a row's bits do not depend on the rows beside it, on the very layers that will run.

Speculation is lossless because a row has the same bits in prefill, in verify and in plain decoding. None of the
libraries underneath promises that, and some break it, so every start checks it.
"""

from collections.abc import Iterable

import torch

from shared.model.devices.cpu.attention import attend
from shared.model.devices.cpu.batch import KEY_GRAIN, Batch
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT
from shared.model.runner import Segment

# Row counts for the layers inside the model: all that a verify may have, and larger ones for prefill.
COUNTS = (*range(1, 33), *range(40, 97, 8), 128, 192, 256, 384, 512)
# Row counts for the output layer, which is large and runs only the rows whose logits are wanted.
HEAD_COUNTS = (*range(1, 11), 12, 14, 16, 20, 24, 28, 32, 48, 64)
REFERENCE_ROWS = 8  # size of the reference blocks that all row counts have to agree with
_CANCELLED = 256  # number of outputs whose sums cancel
_ATTENDING = (*range(1, 10), 16, 17, 31, 40, 48, 56, 63)  # rows of one to eight blocks of queries


def cancelling_rows(weight: torch.Tensor, bias: torch.Tensor | None, num_rows: int) -> torch.Tensor:
    """Return rows for which a layer with these weights sums to nearly zero, so that only rounding remains.

    The rounding of a float32 sum shows in one bfloat16 result in a thousand; if the terms cancel, it nearly always
    shows. weight: [outputs, in], a part of the layer's; bias: [outputs]. Returns [num_rows, in] float32.
    """
    generator = torch.Generator().manual_seed(0)
    w = weight.double()
    x = torch.randn(num_rows, w.shape[1], generator=generator, dtype=torch.float64)
    y = x @ w.T if bias is None else x @ w.T + bias.double()  # [num_rows, outputs]
    gram = w @ w.T  # [outputs, outputs]
    gram.diagonal().add_(gram.diagonal().mean() * 1e-6 + 1e-12)  # for rows of zeros, and for equal rows
    rows: torch.Tensor = x - torch.linalg.solve(gram, y.T).T @ w
    return rows.float()


def some_outputs(num_outputs: int, num_inputs: int) -> torch.Tensor:
    """Return evenly spread outputs, few enough that all of their sums can cancel. [outputs] int64."""
    number = max(1, min(_CANCELLED, num_inputs // 2, num_outputs))
    return torch.linspace(0, num_outputs - 1, number).long()


def agreeing_counts(layer: KernelLinear, x: torch.Tensor, counts: Iterable[int] = COUNTS) -> list[int]:
    """Return the row counts that give each row the same bits as blocks of REFERENCE_ROWS do.

    Each count starts at a different row of x, so that a row's place must not matter either. x: [rows, in], with at
    least REFERENCE_ROWS more rows than the largest count.
    """
    blocks = torch.split(x[: len(x) // REFERENCE_ROWS * REFERENCE_ROWS], REFERENCE_ROWS)
    reference = torch.cat([layer.multiply(block) for block in blocks])  # [rows, out]

    def agrees(count: int) -> bool:
        first = count % 7 + 1
        return torch.equal(layer.multiply(x[first : first + count]), reference[first : first + count])

    return [count for count in counts if count + REFERENCE_ROWS <= len(reference) and agrees(count)]


def inexact_attention(heads: int, kv_heads: int, head_dim: int, num_keys: int, dtype: torch.dtype) -> str:
    """Return where a row's bits in attention depend on its place or on the rows beside it; empty if nowhere.

    Tries the first 64 positions, the last 64 of `num_keys`, and some in between.
    """
    generator = torch.Generator().manual_seed(0)
    keys, values = (
        torch.randn(1, kv_heads, num_keys, head_dim, generator=generator).to(dtype) for _ in ("keys", "values")
    )
    query = torch.randn(KEY_GRAIN, heads, head_dim, generator=generator).to(dtype)  # one row per position
    grains = num_keys // KEY_GRAIN
    for grain in sorted({0, 1, grains // 8, grains // 2, grains - 1} & set(range(grains))):
        first = grain * KEY_GRAIN

        def run(start: int, stop: int, first: int = first) -> torch.Tensor:
            batch = Batch.of(
                [Segment(0, first + start, [0] * (stop - start), 0)], ANY_COUNT, ANY_COUNT, heads // kv_heads, dtype
            )
            return attend(query[start:stop], keys, values, batch, None)

        whole = run(0, KEY_GRAIN)
        for size in _ATTENDING:
            start = (7 * size) % (KEY_GRAIN - size + 1)
            if not torch.equal(run(start, start + size), whole[start : start + size]):
                return f"attention to {first + KEY_GRAIN} keys, {size} rows from the {start}th"
    return ""
