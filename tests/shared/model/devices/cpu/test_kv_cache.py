"""The tensors of the slots."""

from pathlib import Path

import torch

from shared.model.loading.load_runner import load_runner
from shared.model.runner import Segment


@torch.inference_mode()
def test_a_slot_is_cleared_where_it_was_written(toy: tuple[Path, Path]) -> None:
    """Claim: nothing is left of what passes and copies wrote, and a long slot is not written to its end for that."""
    runner = load_runner(toy[1], "float32", 3, 1024)
    runner.extend([Segment(0, 0, [5] * 70, 1)])
    assert runner.copy(0, 2, 70)
    tensors = [states for layer in runner._cache.layers for states in (layer.keys, layer.values)]
    for states in tensors:
        assert torch.count_nonzero(states[2]) > 0
        states[0, :, 70:128] = torch.nan  # as a pass may leave it, up to the end of its last keys
        states[:, :, 1000] = 1  # as no pass left it
    for slot in (0, 2):
        runner.clear(slot)
    for states in tensors:
        assert torch.count_nonzero(states[[0, 2], :, :128]) == 0
        assert torch.all(states[:, :, 1000] == 1)
    runner.extend([Segment(0, 0, [5] * 3, 1)])
