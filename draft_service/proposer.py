"""Makes the proposals of one session."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from shared.errors import InvalidFieldError, OutOfOrderError
from shared.model.engine import Engine
from shared.model.session import Session
from shared.pb import specdec_pb2 as pb


class Proposer:
    """The draft model's guesses at how a sequence goes on.

    A proposal is made by decoding, with the same noise as the target, past the committed tokens; what was committed
    instead then overwrites it.
    """

    def __init__(
        self, engine: Engine, session: Session, round_number: int, write: Callable[[pb.DraftResponse], Awaitable[None]]
    ) -> None:
        """Start with the session's tokens as the committed ones; `write` sends a part of a proposal."""
        self._engine, self._session, self._write = engine, session, write
        self._round = round_number
        self._committed = len(session.token_ids)

    async def propose(self, k: int) -> None:
        """Send k draft tokens one by one as they are made; fewer at a stop token or at the end of the context.

        Raises InvalidFieldError.
        """
        if not 0 <= k <= self._engine.info.max_draft_tokens:
            raise InvalidFieldError(
                "num_draft_tokens", f"{k} is not between 0 and {self._engine.info.max_draft_tokens}"
            )
        num_tokens = min(k, self._session.room)
        last = False
        if num_tokens:
            async with aclosing(self._engine.decode(self._session, num_tokens)) as outcomes:
                async for outcome in outcomes:
                    last = outcome.last
                    await self._write(
                        pb.DraftResponse(
                            round=self._round,
                            position=outcome.position,
                            token_ids=outcome.verdict.token_ids,
                            last=last,
                            timing=outcome.timing,
                        )
                    )
        if not last:
            await self._write(pb.DraftResponse(round=self._round, position=len(self._session.token_ids), last=True))

    def advance(self, request: pb.DraftAdvance) -> None:
        """Take over what was committed. Raises OutOfOrderError, InvalidFieldError."""
        if request.round <= self._round:
            raise OutOfOrderError(f"round: {request.round} does not follow {self._round}")
        if request.position != self._committed:
            raise OutOfOrderError(f"position: {request.position} where {self._committed} tokens were committed")
        if not request.token_ids:
            raise InvalidFieldError("token_ids", "empty")
        self._engine.check_token_ids("token_ids", request.token_ids)
        committed = request.position + len(request.token_ids)
        if committed > self._session.max_length:
            problem = f"they end at {committed}, the context is {self._session.max_length}"
            raise InvalidFieldError("token_ids", problem)
        self._session.rewrite(request.position, request.token_ids)
        self._round, self._committed = request.round, committed
