"""What a request used."""

from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from gateway.acceptance import Acceptance
from gateway.decoder import Round
from gateway.meter import PARTS, Meter
from gateway.round_time import RoundTime


@dataclass
class Usage:
    """Counts the tokens of all choices of a request, how well speculation did, and where the time went."""

    prompt_tokens: int
    meter: Meter
    """Counts the rounds of all requests."""
    completion_tokens: int = 0
    acceptance: Acceptance = field(default_factory=Acceptance)
    times: list[RoundTime] = field(default_factory=list)

    def count(self, round_: Round, completion_tokens: int, emit_seconds: float) -> None:
        """Count a round, of whose tokens so many are in the reply; it took so long to turn them into text."""
        round_ = replace(round_, time=round_.time.emitted(emit_seconds))
        self.completion_tokens += completion_tokens
        self.acceptance.count(round_.num_drafted, round_.num_accepted)
        self.times.append(round_.time)
        self.meter.count(round_)

    def tokens(self) -> dict[str, int]:
        """Return the `usage` of the OpenAI API."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def metrics(self) -> dict[str, Any]:
        """Return the `metrics`; the medians are over the request's rounds, and null without one."""
        return {
            "speculative_decoding": {
                **self.acceptance.metrics(),
                "round_overhead_p50_ms": self._median_ms("overhead"),
                "round_p50_ms": {part: self._median_ms(part) for part in PARTS},
            }
        }

    def _median_ms(self, part: str) -> float | None:
        return median(getattr(time, part) for time in self.times) * 1000 if self.times else None
