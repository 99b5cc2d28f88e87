"""Tries a loaded model before it serves."""

import random

import torch

from shared.errors import ModelError
from shared.model.checkpoints.supported import refusing
from shared.model.runner import Rows, Runner, Segment

_PREFILLED, _COMPARED = 72, 12  # rows of a prefill, and how many of them other passes repeat


_VERIFIES = ((0, 1, 0), (1, 5, 0), (6, 2, 7), (0, 9, 3), (9, 1, 1), (0, 12, 40))  # offset, rows, rows beside them


def inexact_pass(runner: Runner, vocab_size: int) -> tuple[str, torch.Tensor]:
    """Return where a row's logits differ between prefill and verify, alone and beside others; empty if nowhere.

    Also return the last rows of the first prefill, [rows, V], as a sample of this arithmetic's bits. Rows are tried at
    the nearest and the farthest positions, beside a session at the other end, since a model may use the largest
    position of a pass. Overwrites the first and the last slot.
    """
    num_slots, max_length = runner.num_slots, runner.max_length
    tokens = random.Random(1).choices(range(vocab_size), k=_PREFILLED)  # noqa: S311 - no secret
    near = min(_PREFILLED, max_length)
    num_rows = min(_COMPARED, near)  # across a key grain, where a sequence is that long
    ends = {near - num_rows: (0, max_length), max_length - num_rows: (max_length - num_rows, near)}
    witness = torch.empty(0)
    for start, (prefilled_from, other_end) in ends.items():
        end = start + num_rows
        ids = tokens[: end - prefilled_from]
        prefilled = _logits(runner, Segment(0, prefilled_from, ids, num_rows))
        witness = witness if len(witness) else prefilled
        for offset, size, num_beside in _VERIFIES:
            beside = min(num_beside, other_end)
            others = (
                [Segment(num_slots - 1, other_end - beside, tokens[:beside], 1)] if beside and num_slots > 1 else []
            )
            rows = slice(offset, offset + size)
            verify = Segment(0, start + offset, ids[len(ids) - num_rows :][rows], size)
            if offset + size <= num_rows and not torch.equal(_logits(runner, verify, *others), prefilled[rows]):
                return (
                    f"a pass of {size} rows at position {start + offset}, beside {beside} of another session",
                    witness,
                )
    return "", witness


def _logits(runner: Runner, *segments: Segment) -> torch.Tensor:
    """Return the wanted rows of the first segment, [rows, V]."""
    rows: list[Rows] = runner.extend(segments)
    return rows[0].logits


def refuse_miscomputed(
    runner: Runner,
    name: str,
    probe: list[int],
    expected: torch.Tensor,
    tolerance: float | None = None,
    *,
    mixture: bool = False,
) -> None:
    """Run the probe with a wrong draft that is rolled back, and compare its last rows with the expected ones, [n, V].

    In a mixture of experts one row may differ: rounding may have sent it to another expert. Raises ModelError.
    """
    num_rows = min(8, len(expected))
    expected = expected[-num_rows:]
    with refusing(name, "its code does not run with our cache and attention"):
        runner.extend([Segment(0, 0, probe[:16], 0)])
        runner.extend([Segment(0, 16, list(reversed(probe[16:])), 0)])
        computed = runner.extend([Segment(0, 16, probe[16:], num_rows)])[0].logits
    differences = (computed.float() - expected.float()).abs().amax(-1).sort().values  # [n]
    difference = float(differences[-2 if mixture and num_rows > 1 else -1])
    scale = float(expected.float().std())
    tolerance = tolerance or (0.5 if expected.dtype == torch.bfloat16 else 0.01)
    if not difference <= scale * tolerance:
        raise ModelError(f"{name}: over the slot cache its logits are off by {difference:.3g} (spread {scale:.3g})")
