"""What a request used."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gateway.decoder import Round


@dataclass
class Usage:
    """Counts the tokens of all choices of a request, and how well speculation did."""

    prompt_tokens: int
    completion_tokens: int = 0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    overheads_ms: list[float] = field(default_factory=list)

    def count(self, round_: Round, completion_tokens: int) -> None:
        """Count a round, of whose tokens so many are in the reply. A round without draft tokens is not a draft."""
        self.completion_tokens += completion_tokens
        self.num_drafts += round_.num_drafted > 0
        self.num_draft_tokens += round_.num_drafted
        self.num_accepted_tokens += round_.num_accepted
        self.overheads_ms.append(round_.round_ms - round_.forward_ms)

    def tokens(self) -> dict[str, int]:
        """Return the `usage` of the OpenAI API."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def metrics(self) -> dict[str, Any]:
        """Return the `metrics`; what is a mean over drafts is null without one."""
        drafts, drafted, accepted = self.num_drafts, self.num_draft_tokens, self.num_accepted_tokens
        speculative_decoding = {
            "num_drafts": drafts,
            "num_draft_tokens": drafted,
            "num_accepted_tokens": accepted,
            "acceptance_rate": accepted / drafted if drafted else None,
            "mean_acceptance_length": 1 + accepted / drafts if drafts else None,
            "round_overhead_p50_ms": median(self.overheads_ms) if self.overheads_ms else None,
        }
        return {"speculative_decoding": speculative_decoding}
