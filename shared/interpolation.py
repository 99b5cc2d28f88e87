"""What a forward pass costs, by its number of rows."""

from bisect import bisect_left
from collections.abc import Sequence


def pass_seconds(rows: Sequence[float], seconds: Sequence[float], at: float) -> float:
    """Return the cost of a pass of `at` rows, on straight lines through the given points, one or more of them.

    rows: ascending. Fewer rows than the first point's cost what it costs; beyond the last point the line goes on that
    joins it to the first, since neighbours that were measured may be too close to tell a slope.
    """
    if at <= rows[0] or len(rows) == 1:
        return seconds[0]
    right = bisect_left(rows, at)
    left = right - 1 if right < len(rows) else 0
    right = min(right, len(rows) - 1)
    slope = (seconds[right] - seconds[left]) / (rows[right] - rows[left])
    return max(seconds[left] + slope * (at - rows[left]), seconds[left])
