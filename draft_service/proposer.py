"""What a session needs from its proposers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from shared.pb import specdec_pb2 as pb

Ask = pb.DraftOpen | pb.DraftAdvance


@dataclass(frozen=True)
class Guess:
    """Draft tokens that were looked up; empty if nothing was found."""

    kind: pb.Proposer.ValueType = pb.PROPOSER_UNSPECIFIED
    token_ids: Sequence[int] = ()
    match: int = 0
    """How many tokens before them agree with where they were found."""
    score: float = 0.0
    """How many of them would be right if what followed before followed again as often."""


class Lookup(ABC):
    """Finds its guesses in a text, at once and at no cost."""

    @abstractmethod
    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens."""

    @abstractmethod
    def guess(self, num_tokens: int) -> Guess:
        """Return at most `num_tokens` draft tokens."""
