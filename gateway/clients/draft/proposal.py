"""What the draft service proposed for a round."""

from dataclasses import dataclass, field

from gateway.clients.answer_check import sane, within
from shared.pb import specdec_pb2 as pb

LOOKUPS = (pb.PROPOSER_PROMPT_LOOKUP, pb.PROPOSER_PREDICTION, pb.PROPOSER_MEMORY)
PROPOSERS = (pb.PROPOSER_DRAFT_MODEL, *LOOKUPS)
END = 2**31  # of what an int32 can say


@dataclass
class Proposal:
    """The draft tokens of a round that have arrived."""

    round: int
    proposer: pb.Proposer.ValueType = pb.PROPOSER_UNSPECIFIED
    """The draft model if it had a part in it, else the lookup."""
    token_ids: list[int] = field(default_factory=list)
    timings: list[pb.StepTiming] = field(default_factory=list)
    """Where the time of each token went."""
    part_timings: list[pb.StepTiming] = field(default_factory=list)
    """Where the time of each part went: that of its tokens, and of what went on before them."""
    complete: bool = False
    """Whether all of it has arrived."""
    asked: bool = True
    """Whether the draft was asked for it."""
    num_new: int = 0
    """How many committed tokens were new to the draft model, if it was asked."""
    compiles: bool = False
    """Whether the draft may have to compile the session's grammar first, which says nothing of how fast it drafts."""
    most: int = END
    """How many draft tokens were asked for; it takes no more."""
    num_asked: int = END
    """How many of these of the draft model, at most."""
    max_forced: int = 0
    """How many of these only where the grammar forces them."""
    forced: set[int] = field(default_factory=set)
    """Which of the draft tokens, by index, the grammar forced, says the draft."""
    sources: list[pb.Proposer.ValueType] = field(default_factory=list)
    """Where each of the draft tokens comes from."""
    vocab_size: int = END
    """How many tokens the target has; it takes none from the first one on that is outside."""

    @property
    def num_unforced(self) -> int:
        """How many draft tokens were asked for beside forced ones, at most; its deadline goes by them."""
        return self.most - self.max_forced

    @property
    def num_looked_up(self) -> int:
        """How many of the draft tokens were looked up."""
        return sum(source in LOOKUPS for source in self.sources)

    def num_guessed(self, num_tokens: int) -> int:
        """Return how many of the first draft tokens are guesses, not forced."""
        return num_tokens - sum(at < num_tokens for at in self.forced)

    def add(self, part: pb.DraftResponse) -> None:
        """Append a part that has arrived, as far as it can be used."""
        self.complete = part.last
        token_ids = part.token_ids[: self.most - len(self.token_ids)]
        if not within(token_ids, self.vocab_size):
            # The rest would stand at other positions than it was meant for.
            self.num_asked = self.most = len(self.token_ids)
            return
        if self.max_forced:
            self.forced.update(len(self.token_ids) + at for at in part.forced if 0 <= at < len(token_ids))
        self.token_ids.extend(token_ids)
        source = part.proposer if part.proposer in PROPOSERS else pb.PROPOSER_DRAFT_MODEL
        if token_ids:
            self.sources += [source] * len(token_ids)
            self.proposer = source if source == pb.PROPOSER_DRAFT_MODEL else self.proposer or source
        if source in LOOKUPS and not part.last:
            return  # the time is that of the model's part
        whole = part.timing if sane(part.timing) else pb.StepTiming()
        self.part_timings.append(whole)
        timings = part.token_timings[: self.most] or [whole]
        self.timings.extend(timing if sane(timing) else pb.StepTiming() for timing in timings)
