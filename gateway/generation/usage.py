"""What a request used."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Self

from gateway.generation.acceptance_counts import Acceptance
from gateway.generation.choice import Choice
from gateway.generation.delta import Delta
from gateway.generation.metrics import Meter
from gateway.rounds.round_time import PARTS, RoundTime


@dataclass
class Usage:
    """Counts a request's tokens over all choices, how well speculation did, and where the time went."""

    prompt_tokens: int
    meter: Meter
    """Counts the rounds of all requests."""
    max_tokens: int | None = None
    """The most tokens of a choice, where the context has left fewer than the request allows."""
    completion_tokens: int = 0
    acceptance: Acceptance = field(default_factory=Acceptance)
    by_proposer: defaultdict[str, Acceptance] = field(default_factory=lambda: defaultdict(Acceptance))
    cached_tokens: int = 0
    """How many of the prompt's tokens the target had in its cache."""
    forced_tokens: int = 0
    """How many tokens the grammar forced, and no draft token was counted for."""
    reasoning_tokens: int = 0
    predicted_tokens: int = 0
    accepted_prediction_tokens: int = 0
    times: list[RoundTime] = field(default_factory=list)

    @classmethod
    def of(cls, choices: Sequence[Choice], meter: Meter) -> Self:
        """Return the usage of choices before they are decoded."""
        prompt_tokens = sum(len(choice.prompt_ids) for choice in choices if choice.first)
        return cls(prompt_tokens, meter, min((choice.max_tokens for choice in choices if choice.cut), default=None))

    def count(self, delta: Delta) -> None:
        """Count a round, and its tokens that are in the reply."""
        round_ = delta.report.round_
        self.completion_tokens += len(delta.report.texts)
        self.reasoning_tokens += delta.num_reasoning_tokens
        self.cached_tokens += delta.num_cached_tokens
        self.acceptance.count(round_.num_drafted, round_.num_accepted)
        self.forced_tokens += len(round_.forced)
        for name, counts in round_.by_proposer().items():
            self.by_proposer[name].count(*counts)
        self.times.append(round_.time)
        self.meter.count(round_)

    def count_prediction(self, predicted: int, accepted: int) -> None:
        """Count the tokens of a choice's prediction, of which `accepted` are in the reply."""
        self.predicted_tokens += predicted
        self.accepted_prediction_tokens += accepted

    @property
    def cut(self) -> dict[str, Any]:
        """What is said of the limit where it was cut, beside the tokens."""
        return {} if self.max_tokens is None else {"max_tokens": self.max_tokens}

    def tokens(self) -> dict[str, Any]:
        """Return the `usage` of the OpenAI API. Rejected prediction tokens are free: no other count includes them."""
        predicted = {
            "accepted_prediction_tokens": self.accepted_prediction_tokens,
            "rejected_prediction_tokens": self.predicted_tokens - self.accepted_prediction_tokens,
        }
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens}
            | (predicted if self.predicted_tokens else {}),
        } | self.cut

    def metrics(self) -> dict[str, Any]:
        """Return the `metrics`; the medians are over the request's rounds, null if there is none."""
        return {
            "speculative_decoding": {
                **self.acceptance.metrics(),
                "by_proposer": {name: acceptance.metrics() for name, acceptance in self.by_proposer.items()},
                "num_forced_tokens": self.forced_tokens,
                "round_overhead_p50_ms": self._median_ms("overhead"),
                "round_p50_ms": {part: self._median_ms(part) for part in PARTS},
            }
        }

    def _median_ms(self, part: str) -> float | None:
        return median(getattr(time, part) for time in self.times) * 1000 if self.times else None
