"""One round, as the decoder yields it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.rounds.round_time import RoundTime
from gateway.speculation.decision import Reason
from shared.pb import specdec_pb2 as pb

FinishReason = Literal["stop", "length"]
ProposerName = Literal["model", "lookup", "prediction", "memory"]


@dataclass(frozen=True)
class Round:
    """What one round committed, and the time it took."""

    token_ids: list[int]
    num_drafted: int
    num_accepted: int
    finish_reason: FinishReason | None
    time: RoundTime
    """From the request for draft tokens to the target's answer."""
    logprobs: Sequence[pb.TokenLogprobs] = ()
    """One per token, if asked for."""
    prompt_logprobs: Sequence[pb.TokenLogprobs] = ()
    """In the first round, one for each token of the prompt but the first, if asked for."""
    proposer: ProposerName | None = None
    """Who proposed the draft tokens; the draft model if it had a part in that."""
    sources: Sequence[ProposerName] = ()
    """Who proposed each of them; nobody is named where it is the proposer."""
    reason: Reason | None = None
    """Why it asked for as many draft tokens as it did."""
    num_cached: int = 0
    """In the first round, how many tokens of the prompt the target had in its cache."""
    forced: Sequence[int] = ()
    """Which of its tokens, by index, the grammar forced: they count as neither drafted nor accepted."""
    identity: pb.ModelIdentity = field(default_factory=pb.ModelIdentity)
    """Who decoded; the same in all rounds of a sequence."""

    def source(self, at: int) -> ProposerName | None:
        """Return who proposed the draft token of this index."""
        return self.sources[at] if at < len(self.sources) else self.proposer

    def by_proposer(self) -> dict[ProposerName, tuple[int, int]]:
        """Return for each proposer how many draft tokens it had, and how many of them were accepted."""
        if not self.proposer:
            return {}
        end = self.num_accepted + len(self.forced)
        others = Counter(name for name in self.sources if name != self.proposer)
        right = Counter(name for name in self.sources[:end] if name != self.proposer)
        own = self.num_drafted - others.total(), self.num_accepted - right.total()
        return {name: (others[name], right[name]) for name in others} | {self.proposer: own}
