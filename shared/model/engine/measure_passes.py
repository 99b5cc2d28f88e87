"""What forward passes cost where a model runs, measured before anybody waits for one."""

from timeit import repeat

from shared.model.runner import Runner, Segment
from shared.pb import specdec_pb2 as pb

_ROWS = (1, 2, 4, 6, 8, 12, 16, 32)  # beyond, rows cost what those before them do
_REPEATS = 2  # the least time counts: nothing makes a pass faster than it is


def measure_passes(runner: Runner, num_slots: int, session_rows: int) -> list[pb.PassCost]:
    """Run passes of one row and more, in as few sessions as can have them, and return what they took.

    A session has at most `session_rows`. The contents of the slots are lost.
    """
    return [_measure(runner, num_rows, session_rows) for num_rows in _ROWS if num_rows <= session_rows * num_slots]


def _measure(runner: Runner, num_rows: int, session_rows: int) -> pb.PassCost:
    sizes = [min(session_rows, num_rows - at) for at in range(0, num_rows, session_rows)]
    segments = [Segment(slot, 0, [0] * size, size) for slot, size in enumerate(sizes)]
    seconds = min(repeat(lambda: runner.extend(segments), number=1, repeat=_REPEATS))
    return pb.PassCost(num_rows=num_rows, forward_us=round(seconds * 1e6))
