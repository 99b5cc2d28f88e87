"""Makes the proposals of one session."""

import asyncio
from collections.abc import Awaitable, Callable

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
        self._superseded = False

    async def propose(self, k: int) -> None:
        """Send k draft tokens one by one as they are made; fewer at a stop token or at the end of the context.

        Raises InvalidFieldError.
        """
        if not 0 <= k <= self._engine.info.max_draft_tokens:
            raise InvalidFieldError(
                "num_draft_tokens", f"{k} is not between 0 and {self._engine.info.max_draft_tokens}"
            )
        session, part = self._session, None
        left = min(k, session.room)
        while left and not self._superseded:
            position = len(session.token_ids)
            outcome, _ = await asyncio.gather(self._engine.verify(session, ()), self._send(part))
            (token_id,) = outcome.verdict.token_ids
            left = 0 if token_id in session.params.stop_token_ids else left - 1
            part = pb.DraftResponse(
                round=self._round, position=position, token_ids=[token_id], last=not left, timing=outcome.timing
            )
        await self._send(part)
        if not part or not part.last:
            await self._send(pb.DraftResponse(round=self._round, position=len(session.token_ids), last=True))

    async def _send(self, part: pb.DraftResponse | None) -> None:
        """Send a part, while the next token is being made already."""
        if part:
            await self._write(part)

    def supersede(self) -> None:
        """Let the proposal that is being made end after the token that is being made."""
        self._superseded = True

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
        self._round, self._committed, self._superseded = request.round, committed, False
