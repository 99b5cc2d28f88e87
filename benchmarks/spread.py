"""A median, and how far the values spread around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Self


@dataclass(frozen=True)
class Spread:
    """The median of some values, and their quartiles."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Summarize the values; None if there are none."""
        if not values:
            return None
        low, _, high = quantiles(values, method="inclusive") if len(values) > 1 else (values[0],) * 3
        return cls(median(values), low, high, len(values))


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the percentile, interpolated between the nearest two values; None if there are no values."""
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=100, method="inclusive")[percent - 1]
