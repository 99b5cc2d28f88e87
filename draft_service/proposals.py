"""The proposals of one session, a round at a time."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from math import inf

from draft_service.draft_model import DraftModel
from draft_service.lookups import Lookups
from draft_service.proposer import Ask
from shared.errors import InvalidFieldError, OutOfOrderError
from shared.pb import specdec_pb2 as pb

MAX_LENGTH = 2**20  # tokens of a sequence or a prediction: lookups go on where the model's context ends


class Proposals:
    """Sends a proposal each round, looked up or the draft model's or both, and checks that rounds come in order."""

    def __init__(
        self,
        lookups: Lookups,
        model: DraftModel | None,
        opening: pb.DraftOpen,
        max_draft_tokens: int,
        write: Callable[[pb.DraftResponse], Awaitable[None]],
    ) -> None:
        """Propose up to `max_draft_tokens` a round; `write` sends a part of a proposal."""
        self._lookups, self._model = lookups, model
        self._max_draft_tokens, self._write = max_draft_tokens, write
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
        if not 0 <= ask.min_lookup_acceptance < inf:
            raise InvalidFieldError("min_lookup_acceptance", f"{ask.min_lookup_acceptance} is not a number from 0 on")
        part, position = pb.DraftResponse(), self._committed
        async with aclosing(self._parts(ask)) as parts:
            async for part in parts:
                part.round, part.position = self._round, position
                position += len(part.token_ids)
                await self._write(part)
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
        if (end := self._committed + len(request.token_ids)) > MAX_LENGTH:
            raise InvalidFieldError("token_ids", f"they end at {end}, the context is {MAX_LENGTH}")
        if self._model:
            self._model.commit(request.token_ids)
        self._lookups.commit(request.token_ids)
        self._round, self._committed = request.round, end

    async def _parts(self, ask: Ask) -> AsyncGenerator[pb.DraftResponse]:
        """Yield what was looked up, if that is sure enough, or else what the draft model makes of it."""
        guess = self._lookups.guess(ask.num_lookup_tokens)
        asks_model = self._model and ask.num_draft_tokens
        if guess.token_ids and not (asks_model and self._lookups.expected(guess) < ask.min_lookup_acceptance):
            yield pb.DraftResponse(token_ids=guess.token_ids, proposer=guess.kind, last=True)
        elif self._model:
            async with aclosing(self._model.propose(ask, self._lookups.likely(guess), guess.kind)) as parts:
                async for part in parts:
                    yield part
