"""How many draft tokens were accepted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Acceptance:
    """Counts drafts by how many tokens they had and how many of these were accepted."""

    drafts: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many drafts there were, by (drafted, accepted) tokens. A round without draft tokens is not a draft."""

    def count(self, num_drafted: int, num_accepted: int) -> None:
        """Count a round."""
        if num_drafted:
            self.drafts[num_drafted, num_accepted] += 1

    def metrics(self) -> dict[str, Any]:
        """Return the counts, and the means over drafts, which are null if there was no draft.

        The names are ours and also vLLM's, whose tools read its `metrics.speculative_decoding`: `num_spec_steps` and
        `num_drafts`, for example, are the same number.
        """
        drafts = self.drafts
        num_drafts, lengths = drafts.total(), sorted({k for k, _ in drafts})
        longest = max(lengths, default=0)
        drafted_per_pos = [sum(times for (k, _), times in drafts.items() if k > pos) for pos in range(longest)]
        accepted_per_pos = [sum(times for (_, num), times in drafts.items() if num > pos) for pos in range(longest)]
        drafted, accepted = sum(drafted_per_pos), sum(accepted_per_pos)
        rate = accepted / drafted if drafted else None
        return {
            "num_drafts": num_drafts,
            "num_draft_tokens": drafted,
            "num_accepted_tokens": accepted,
            "acceptance_rate": rate,
            "mean_acceptance_length": 1 + accepted / num_drafts if num_drafts else None,
            "num_draft_tokens_per_pos": drafted_per_pos,
            "num_accepted_tokens_per_pos": accepted_per_pos,
            "num_spec_steps": num_drafts,
            "num_spec_tokens": longest,
            "num_accepted_draft_tokens": accepted,
            "draft_acceptance_rate": rate,
            "acceptance_histogram": [sum(drafts[k, num] for k in lengths) for num in range(longest + 1)],
            "acceptance_histogram_by_draft_length": {str(k): [drafts[k, num] for num in range(k + 1)] for k in lengths},
        }
