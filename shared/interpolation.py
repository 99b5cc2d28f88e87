"""The cost of a forward pass as a function of its number of rows."""

from bisect import bisect_left
from collections.abc import Sequence


def pass_seconds(rows: Sequence[float], seconds: Sequence[float], at: float) -> float:
    """Return the cost of a pass of `at` rows, interpolated linearly between the given points (at least one).

    rows: ascending. Below the first point the cost is that point's. Beyond the last point the line through the first
    and the last continues, since neighbouring measurements may be too close together to give a slope.
    """
    if at <= rows[0] or len(rows) == 1:
        return seconds[0]
    right = bisect_left(rows, at)
    left = right - 1 if right < len(rows) else 0
    right = min(right, len(rows) - 1)
    slope = (seconds[right] - seconds[left]) / (rows[right] - rows[left])
    return max(seconds[left] + slope * (at - rows[left]), seconds[left])
