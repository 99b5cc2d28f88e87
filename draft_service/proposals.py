"""The proposals of one session, a round at a time."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from draft_service.proposer import Ask, Proposer
from shared.errors import InvalidFieldError, OutOfOrderError
from shared.pb import specdec_pb2 as pb


class Proposals:
    """Sends each round the guess of the first proposer that has one, and checks that rounds come in order."""

    def __init__(
        self,
        proposers: Sequence[Proposer],
        opening: pb.DraftOpen,
        max_draft_tokens: int,
        max_length: int,
        write: Callable[[pb.DraftResponse], Awaitable[None]],
    ) -> None:
        """Ask the proposers in this order, up to `max_length` tokens; `write` sends a part of a proposal."""
        self._proposers, self._max_draft_tokens, self._write = proposers, max_draft_tokens, write
        self._max_length = max_length
        self._round, self._committed = opening.round, len(opening.prompt_token_ids)

    async def propose(self, ask: Ask) -> None:
        """Send one proposal, which may be empty. Raises InvalidFieldError."""
        for field in ("num_draft_tokens", "num_lookup_tokens"):
            if not 0 <= getattr(ask, field) <= self._max_draft_tokens:
                raise InvalidFieldError(field, f"{getattr(ask, field)} is not between 0 and {self._max_draft_tokens}")
        if not 0 <= ask.min_confidence <= 1:
            raise InvalidFieldError("min_confidence", f"{ask.min_confidence:g} is not between 0 and 1")
        if ask.max_forced_tokens < 0:
            raise InvalidFieldError("max_forced_tokens", f"{ask.max_forced_tokens} is not at least 0")
        part, position = pb.DraftResponse(), self._committed
        for proposer in self._proposers:
            async with aclosing(proposer.propose(ask)) as parts:
                async for part in parts:
                    part.round, part.position = self._round, position
                    position += len(part.token_ids)
                    await self._write(part)
            if part.token_ids:
                break
        if not part.last:
            await self._write(pb.DraftResponse(round=self._round, position=position, last=True))

    def advance(self, request: pb.DraftAdvance) -> None:
        """Pass the committed tokens to the proposers. Raises OutOfOrderError, InvalidFieldError."""
        if request.round <= self._round:
            raise OutOfOrderError(f"round: {request.round} does not follow {self._round}")
        if request.position != self._committed:
            raise OutOfOrderError(f"position: {request.position} where {self._committed} tokens were committed")
        if not request.token_ids:
            raise InvalidFieldError("token_ids", "empty")
        if (end := self._committed + len(request.token_ids)) > self._max_length:
            raise InvalidFieldError("token_ids", f"they end at {end}, the context is {self._max_length}")
        for proposer in self._proposers:
            proposer.commit(request.token_ids)
        self._round, self._committed = request.round, end
