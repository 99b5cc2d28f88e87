"""Measured costs of forward passes."""

from collections import deque
from collections.abc import Iterable, Sequence
from math import log2
from statistics import median

from gateway.speculation.tuning import TUNING
from shared.interpolation import pass_seconds
from shared.pb import specdec_pb2 as pb


class RecentMedian:
    """The median of the last measurements, which an occasional stall of the machine does not change."""

    def __init__(self, memory: int = TUNING.cost_memory) -> None:
        """Remember the last `memory` measurements."""
        self._values: deque[float] = deque(maxlen=memory)
        self._value: float | None = 0.0  # None until it is computed again

    @property
    def count(self) -> int:
        """How many measurements it is based on."""
        return len(self._values)

    @property
    def value(self) -> float:
        """The median; 0 while nothing was measured."""
        if self._value is None:
            self._value = median(self._values)
        return self._value

    def add(self, value: float) -> None:
        """Record a measurement."""
        self._values.append(value)
        self._value = None


class PassCosts:
    """How long a service's forward passes take, by their number of rows."""

    def __init__(self, pass_costs: Iterable[pb.PassCost] = ()) -> None:
        """Begin with the service's own measurements."""
        self._classes: dict[int, tuple[RecentMedian, RecentMedian]] = {}  # rows and seconds
        self._last: tuple[int, float] | None = None
        for cost in pass_costs:
            self.add(cost.num_rows, cost.forward_us / 1e6)

    @property
    def known(self) -> bool:
        """Whether any pass was measured."""
        return bool(self._classes)

    def add(self, num_rows: int, seconds: float) -> bool:
        """Record a pass once, although each of its sessions reports it; return whether it is new.

        Of a pass that cannot be, nothing is recorded.
        """
        if (num_rows, seconds) == self._last or num_rows < 1 or seconds < 0:
            return False
        self._last = num_rows, seconds
        size = round(TUNING.row_classes_per_octave * log2(num_rows))
        rows, passes = self._classes.setdefault(size, (RecentMedian(), RecentMedian()))
        rows.add(num_rows)
        passes.add(seconds)
        return True

    def seconds(self, num_rows: Sequence[int], *, from_zero: bool = False) -> list[float]:
        """Return the estimated seconds of passes with these numbers of rows; 0 if no pass was measured.

        from_zero: assume that no rows take no time, so that beyond what was measured, time grows in proportion to rows.
        """
        if not self._classes:
            return [0.0] * len(num_rows)
        medians = sorted((rows.value, passes.value) for rows, passes in self._classes.values())
        rows, seconds = zip(*([(0, 0.0)] if from_zero else []), *medians, strict=True)
        return [pass_seconds(rows, seconds, at) for at in num_rows]
