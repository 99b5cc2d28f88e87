"""How fast speculation is expected to be, from acceptance and costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul


@dataclass(frozen=True)
class CostModel:
    """What the parts of a round cost, in seconds.

    The expected number of tokens that a round commits follows Leviathan, Kalman, Matias, arXiv 2211.17192,
    section 3.1, but with a separate acceptance rate for each position.
    """

    draft_token_seconds: float
    """The cost of one draft token."""
    verify_seconds: Sequence[float]
    """The cost of a verify of k+1 rows, indexed by k from 0 to the largest."""
    overhead_seconds: float = 0.0
    """The cost of a round apart from its forward passes."""
    proposal_seconds: float = 0.0
    """The fixed cost of a proposal, apart from its tokens; a round with k = 0 has no proposal."""

    def round_seconds(self, k: int) -> float:
        """Return the time of a round with k draft tokens: at least a microsecond, whatever was measured."""
        proposal = max(self.proposal_seconds + k * self.draft_token_seconds, 0.0) if k else 0.0
        return max(proposal + self.verify_seconds[k] + self.overhead_seconds, 1e-6)

    def tokens_per_second(self, acceptance: float | Sequence[float]) -> list[float]:
        """Return the expected speed of each k, indexed by k.

        acceptance: for each position, the probability that its draft token is accepted given that all earlier ones
        are; a single number applies to all positions. Raises ValueError unless there are as many positions as the
        largest k.
        """
        rates = [acceptance] * (len(self.verify_seconds) - 1) if isinstance(acceptance, int | float) else acceptance
        lengths = accumulate(accumulate(rates, mul), initial=1.0)  # mean acceptance length, indexed by k
        ks = range(len(self.verify_seconds))
        return [length / self.round_seconds(k) for k, length in zip(ks, lengths, strict=True)]

    def break_even(self, tokens_per_second: float, k: int) -> float:
        """Return how likely one of k draft tokens must be accepted so as not to lower this speed, 0 to 1.

        A token costs its draft pass, and on the mean of k what the verify takes longer.
        """
        seconds = self.draft_token_seconds + (self.verify_seconds[k] - self.verify_seconds[0]) / k
        return min(max(seconds * tokens_per_second, 0.0), 1.0)

    def best_k(self, acceptance: float | Sequence[float]) -> int:
        """Return the k with the highest expected speed; of equals, the smallest."""
        speeds = self.tokens_per_second(acceptance)
        return speeds.index(max(speeds))
