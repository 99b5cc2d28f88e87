"""What a round reports to a client that asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.rounds.round import ProposerName, Round
from gateway.rounds.round_time import PARTS

Source = ProposerName | Literal["grammar", "recovered", "bonus", "plain"]


def sources(round_: Round) -> list[Source | None]:
    """Return the source of each token of a round; also that of its last token if the sequence ended before it."""
    own: Source = "bonus" if round_.num_accepted == round_.num_drafted else "recovered"
    if not round_.num_drafted:
        own = "bonus" if round_.forced else "plain"
    num_accepted = round_.num_accepted + len(round_.forced)
    return [*("grammar" if at in round_.forced else round_.source(at) for at in range(num_accepted)), own]


@dataclass(frozen=True)
class RoundReport:
    """One round."""

    round_: Round
    texts: Sequence[str]
    """What each of its tokens added to the reply."""

    @property
    def token_ids(self) -> list[int]:
        """Its tokens that are in the reply."""
        return list(self.round_.token_ids)[: len(self.texts)]

    @property
    def body(self) -> dict[str, Any]:
        """The report, times in milliseconds."""
        tokens = zip(self.round_.token_ids, self.texts, sources(self.round_), strict=False)
        return {
            "proposer": self.round_.proposer,
            "reason": self.round_.reason,
            "num_drafted": self.round_.num_drafted,
            "num_accepted": self.round_.num_accepted,
            "num_forced": len(self.round_.forced),
            "tokens": [{"id": token_id, "text": text, "source": source} for token_id, text, source in tokens],
            "time_ms": {part: getattr(self.round_.time, part) * 1000 for part in PARTS},
        }
