"""What the draft service proposed for a round."""

from dataclasses import dataclass, field

from shared.pb import specdec_pb2 as pb

LOOKUPS = (pb.PROPOSER_PROMPT_LOOKUP, pb.PROPOSER_PREDICTION)


@dataclass
class Proposal:
    """The draft tokens of a round that have arrived."""

    round: int
    proposer: pb.Proposer.ValueType = pb.PROPOSER_UNSPECIFIED
    token_ids: list[int] = field(default_factory=list)
    timings: list[pb.StepTiming] = field(default_factory=list)
    asked: bool = True
    """Whether the draft was asked for it."""
    num_new: int = 0
    """How many committed tokens were new to the draft model, if it was asked."""

    def add(self, part: pb.DraftResponse) -> None:
        """Append a part that has arrived."""
        self.token_ids.extend(part.token_ids)
        self.proposer = self.proposer or part.proposer
        self.timings.append(part.timing)
