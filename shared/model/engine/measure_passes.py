"""Measures the cost of forward passes on the model's device, before any session waits for one."""

from timeit import repeat

from shared.model.runner import Runner, Segment
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

_ROWS = (1, 2, 4, 6, 8, 12, 16, 32)  # beyond these, the cost per row stays the same
_REPEATS = 2  # the shortest time counts: disturbances only make a pass slower


def measure_passes(runner: Runner, num_slots: int, session_rows: int) -> list[pb.PassCost]:
    """Run passes with one row and more, spread over as few sessions as possible, and return how long they took.

    A session has at most `session_rows`, and is sampled as when it is served: a device that can draw does, and ranks
    then join no logits. Overwrites the slots.
    """
    return [_measure(runner, num_rows, session_rows) for num_rows in _ROWS if num_rows <= session_rows * num_slots]


def _measure(runner: Runner, num_rows: int, session_rows: int) -> pb.PassCost:
    sizes = [min(session_rows, num_rows - at) for at in range(0, num_rows, session_rows)]
    segments = [Segment(slot, 0, [0] * size, size, SamplingParams()) for slot, size in enumerate(sizes)]
    seconds = min(repeat(lambda: runner.extend(segments), number=1, repeat=_REPEATS))
    return pb.PassCost(num_rows=num_rows, forward_us=round(seconds * 1e6))
