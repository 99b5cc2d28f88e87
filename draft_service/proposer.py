"""What a session needs from its proposers."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar, Protocol

from shared.pb import specdec_pb2 as pb

Ask = pb.DraftOpen | pb.DraftAdvance


class Proposer(Protocol):
    """Guesses how one sequence continues."""

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens."""

    def propose(self, ask: Ask) -> AsyncGenerator[pb.DraftResponse, None]:
        """Yield the parts of a proposal, each with the fields the proposer knows; nothing if it has no guess."""


class Lookup(ABC):
    """A proposer that finds its guesses in a text, at once and at no cost."""

    kind: ClassVar[pb.Proposer.ValueType]

    @abstractmethod
    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens."""

    @abstractmethod
    def guess(self, num_tokens: int) -> list[int]:
        """Return at most `num_tokens` draft tokens."""

    async def propose(self, ask: Ask) -> AsyncGenerator[pb.DraftResponse, None]:
        """Yield the guess, if there is one."""
        if ask.num_lookup_tokens and (token_ids := self.guess(ask.num_lookup_tokens)):
            yield pb.DraftResponse(token_ids=token_ids, proposer=self.kind, last=True)
