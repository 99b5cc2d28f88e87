"""What a maker of proposals is to the session that it makes them for."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar, Protocol

from shared.pb import specdec_pb2 as pb

Ask = pb.DraftOpen | pb.DraftAdvance


class Proposer(Protocol):
    """Guesses how one sequence goes on."""

    def commit(self, token_ids: Sequence[int]) -> None:
        """Take over tokens that joined the sequence."""

    def propose(self, ask: Ask) -> AsyncGenerator[pb.DraftResponse, None]:
        """Yield the parts of a proposal, with what the proposer knows of each; nothing if it has no guess."""


class Lookup(ABC):
    """A proposer that finds its guesses in a text: they cost nothing, and come at once."""

    kind: ClassVar[pb.Proposer.ValueType]

    @abstractmethod
    def commit(self, token_ids: Sequence[int]) -> None:
        """Take over tokens that joined the sequence."""

    @abstractmethod
    def guess(self, num_tokens: int) -> list[int]:
        """Return at most so many draft tokens."""

    async def propose(self, ask: Ask) -> AsyncGenerator[pb.DraftResponse, None]:
        """Yield the guess, if there is one."""
        if token_ids := self.guess(ask.num_lookup_tokens):
            yield pb.DraftResponse(token_ids=token_ids, proposer=self.kind, last=True)
