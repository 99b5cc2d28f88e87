"""How likely draft tokens are to be accepted."""

from collections.abc import Sequence

from gateway.speculation.tuning import TUNING


class AcceptanceEstimate:
    """For each position, how likely its draft token is to be accepted once those before it were.

    Old drafts fade. Assume that a position seldom reached is like the others, and that until drafts were seen, all
    positions are like `expected`.
    """

    def __init__(self, num_positions: int, memory: float, expected: "AcceptanceEstimate | float") -> None:
        """Remember about the last `memory` drafts; `expected` is the rate, or the estimate, to start from."""
        self._reached, self._accepted = [0.0] * num_positions, [0.0] * num_positions
        self._keep = 1 - 1 / memory
        self._expected = expected

    def add(self, num_drafted: int, num_accepted: int) -> None:
        """Record a draft."""
        for position in range(len(self._reached)):
            reached = position < min(num_drafted, num_accepted + 1)
            self._reached[position] = self._reached[position] * self._keep + reached
            self._accepted[position] = self._accepted[position] * self._keep + (position < num_accepted)

    @property
    def rate(self) -> float:
        """The rate over all positions."""
        expected = self._expected if isinstance(self._expected, float) else self._expected.rate
        weight = TUNING.expected_weight
        return (sum(self._accepted) + weight * expected) / (sum(self._reached) + weight)

    @property
    def rates(self) -> Sequence[float]:
        """The rate of each position."""
        rate, weight = self.rate, TUNING.expected_weight
        both = zip(self._accepted, self._reached, strict=True)
        return [(accepted + weight * rate) / (reached + weight) for accepted, reached in both]
