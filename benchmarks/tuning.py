"""What the replies with each k tell about acceptance, costs and the best k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import linear_regression, median

from benchmarks.reply import Reply
from benchmarks.section import Value
from benchmarks.single import acceptance_row
from shared.cost_model import CostModel


def speed(replies: Sequence[Reply]) -> float:
    """Return the tokens a second after the first piece of text, of all these replies together."""
    return sum(reply.later_tokens for reply in replies) / sum(sum(reply.gap_seconds) for reply in replies)


@dataclass(frozen=True)
class Tuning:
    """One proposer's complete replies, by k from 0, which is plain decoding; at least one for each k."""

    replies: Sequence[Sequence[Reply]]

    @cached_property
    def measured(self) -> list[float]:
        """Tokens a second after the first piece of text, by k."""
        return [speed(of_k) for of_k in self.replies]

    @cached_property
    def acceptance(self) -> list[float]:
        """For each position, the share of its draft tokens that were accepted once those before them were."""
        drafts = [
            (int(length), accepted, times)
            for of_k in self.replies
            for reply in of_k
            for length, histogram in reply.metrics["acceptance_histogram_by_draft_length"].items()
            for accepted, times in enumerate(histogram)
        ]
        rates = []
        for position in range(len(self.replies) - 1):
            reached = sum(times for length, accepted, times in drafts if length > position <= accepted)
            passed = sum(times for _, accepted, times in drafts if accepted > position)
            rates.append(passed / reached if reached else 0.0)
        return rates

    @cached_property
    def costs(self) -> CostModel:
        """The parts of a round's time. A proposal's cost is a straight line fitted to its cost with each k."""
        plain_overhead = self._median_ms(0, "overhead")
        ks = range(1, len(self.replies))
        proposing = [self._median_ms(k, "draft") + self._median_ms(k, "overhead") - plain_overhead for k in ks]
        slope, intercept = linear_regression(ks, proposing) if len(ks) > 1 else (sum(proposing), 0.0)
        return CostModel(
            draft_token_seconds=max(slope, 0.0) / 1000,
            verify_seconds=[self._median_ms(k, "verify") / 1000 for k in range(len(self.replies))],
            overhead_seconds=plain_overhead / 1000,
            proposal_seconds=max(intercept, 0.0) / 1000,
        )

    @cached_property
    def predicted(self) -> list[float]:
        """The cost model's tokens a second, by k."""
        return self.costs.tokens_per_second(self.acceptance)

    @property
    def best_k(self) -> int:
        """The k that was fastest."""
        return self.measured.index(max(self.measured))

    def over_plain(self, k: int) -> float:
        """Return the speed with k as a multiple of plain decoding's."""
        return self.measured[k] / self.measured[0]

    def rows(self, *, predict: bool) -> list[Mapping[str, Value]]:
        """Return the tuning table; `predict` adds predictions, for a proposer that the cost model describes."""
        return [
            {
                "k": k,
                "accepted at position k": self.acceptance[k - 1] if k else None,
                **acceptance_row(self.replies[k]),
                "draft token, ms": self._median_ms(k, "draft") / k if k else None,
                "verify of k+1 rows, ms": self._median_ms(k, "verify"),
                "overhead, ms": self._median_ms(k, "overhead"),
                "tokens/s": self.measured[k],
                "predicted": self.predicted[k] if predict else None,
                "predicted over measured": self.predicted[k] / self.measured[k] if predict else None,
                "over plain": self.over_plain(k),
                "best": "*" if k == self.best_k else "",
            }
            for k in range(len(self.replies))
        ]

    def _median_ms(self, k: int, part: str) -> float:
        """Return the median over the replies of each one's median over its rounds."""
        parts = (
            reply.metrics["round_p50_ms"] | {"overhead": reply.metrics["round_overhead_p50_ms"]}
            for reply in self.replies[k]
        )
        return median(float(of[part]) for of in parts)
