"""How fast speculation is expected to be, from acceptance and costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul


@dataclass(frozen=True)
class CostModel:
    """What the parts of a round cost, in seconds.

    The expected number of tokens that a round commits is that of Leviathan, Kalman, Matias, arXiv 2211.17192,
    section 3.1, with an acceptance of its own for each position.
    """

    draft_token_seconds: float
    """Of one draft token."""
    verify_seconds: Sequence[float]
    """Of a verify of k+1 rows, indexed by k from 0 to the largest."""
    overhead_seconds: float = 0.0
    """Of a round beside its forward passes."""
    proposal_seconds: float = 0.0
    """Of asking for a proposal, beside its tokens; a round with k = 0 asks for none."""

    def round_seconds(self, k: int) -> float:
        """Return what a round with k draft tokens takes."""
        proposal = max(self.proposal_seconds + k * self.draft_token_seconds, 0.0) if k else 0.0
        return proposal + self.verify_seconds[k] + self.overhead_seconds

    def tokens_per_second(self, acceptance: float | Sequence[float]) -> list[float]:
        """Return the expected speed of each k, indexed by k.

        acceptance: at each position the probability that its draft token is accepted when those before it are; one
        number stands for all positions. Raises ValueError if the positions are not as many as the largest k.
        """
        rates = [acceptance] * (len(self.verify_seconds) - 1) if isinstance(acceptance, int | float) else acceptance
        lengths = accumulate(accumulate(rates, mul), initial=1.0)  # mean acceptance length, indexed by k
        ks = range(len(self.verify_seconds))
        return [length / self.round_seconds(k) for k, length in zip(ks, lengths, strict=True)]

    def best_k(self, acceptance: float | Sequence[float]) -> int:
        """Return the k of the highest expected speed, the smallest of equals."""
        speeds = self.tokens_per_second(acceptance)
        return speeds.index(max(speeds))
