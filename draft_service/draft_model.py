"""Proposes what the draft model says."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from draft_service.proposer import Ask
from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

if TYPE_CHECKING:  # a draft service without a model does without torch
    from shared.model.engine.engine import Engine
    from shared.model.engine.session import Session


class DraftModel:
    """Decodes past the committed tokens with the same noise as the target; what was committed then overwrites that.

    A round in which it is not asked costs it nothing: what was committed meanwhile is run when it is asked again.

    If it works ahead, it goes on behind its proposal while the target verifies it: with a guess of the bonus token,
    which is good because the noise is the target's own, and then of the next proposal. Where the target commits just
    that, the next proposal is there when it is asked for; else it is overwritten like any other. (The likeliest single
    outcome of SSD, arXiv 2603.03251, as in SpecEdge, arXiv 2505.17052.)
    """

    def __init__(
        self,
        engine: "Engine",
        slot: AsyncExitStack,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        works_ahead: bool,
    ) -> None:
        """Propose for this sequence; what `open` takes is given back with `slot`."""
        self._engine, self._slot, self._params, self._works_ahead = engine, slot, params, works_ahead
        self._pending = list(prompt_ids)  # committed, and the session may not have it
        self._committed = 0  # how many tokens of the session are committed for sure
        self._session: Session | None = None
        self._prefilling = False  # perhaps: then the session is not ours to write to
        self._ahead: asyncio.Task[None] | None = None  # likewise while it runs

    async def open(self) -> "Session":
        """Take a slot, unless it has one, and start to prefill. Raises what `Engine.session` raises."""
        if not self._session:
            self._session = await self._slot.enter_async_context(self._engine.session(self._pending, self._params))
            self._slot.callback(self._cancel_ahead)
            self._committed, self._pending, self._prefilling = len(self._pending), [], True
        return self._session

    def commit(self, token_ids: Sequence[int]) -> None:
        """Take over tokens that joined the sequence. Raises InvalidFieldError if they are not for this model."""
        self._engine.check_token_ids("token_ids", token_ids)
        self._pending.extend(token_ids)
        end, limit = self._committed + len(self._pending), self._engine.info.max_length
        if end > limit:
            raise InvalidFieldError("token_ids", f"they end at {end}, the context is {limit}")

    async def propose(self, ask: Ask) -> AsyncGenerator[pb.DraftResponse, None]:
        """Yield the draft tokens as they are made; fewer at a stop token or at the end of the context."""
        k = ask.num_draft_tokens
        if not k:
            return
        session = await self.open()
        await self._settle(session)
        ready = self._take_over_pending(session)[:k]
        last = len(ready) == k or self._ended(session)
        if ready:
            yield pb.DraftResponse(token_ids=ready, last=last, proposer=pb.PROPOSER_DRAFT_MODEL)
        if (num_tokens := min(k - len(ready), session.room)) and not last:
            with self._engine.decode(session, num_tokens) as outcomes:
                async for outcome in outcomes:
                    last = outcome.last
                    yield pb.DraftResponse(
                        token_ids=outcome.verdict.token_ids,
                        last=last,
                        timing=outcome.timing,
                        proposer=pb.PROPOSER_DRAFT_MODEL,
                    )
        if self._works_ahead and last and not self._ended(session):
            # The bonus token and as many draft tokens again, less what there is of them.
            num_tokens = 1 + 2 * k - (len(session.token_ids) - self._committed)
            self._ahead = asyncio.create_task(self._work_ahead(session, min(num_tokens, session.room)))

    def stop(self) -> None:
        """End what is being made, after the token that is being made."""
        if self._session and not self._prefilling:  # a prefill is of use to the next one too
            self._engine.withdraw(self._session)

    def _take_over_pending(self, session: "Session") -> list[int]:
        """Make the session begin with what is committed, and return what it has guessed beyond."""
        guessed, num_pending = session.token_ids[self._committed :], len(self._pending)
        if guessed[:num_pending] != self._pending:
            session.rewrite(self._committed, self._pending)
            guessed = self._pending
        self._committed, self._pending = self._committed + num_pending, []
        return guessed[num_pending:]

    def _ended(self, session: "Session") -> bool:
        """Whether what was guessed ends the sequence."""
        return len(session.token_ids) > self._committed and session.ended

    async def _settle(self, session: "Session") -> None:
        """Wait until nothing runs that writes to the session."""
        if self._ahead:
            self.stop()
            await self._ahead
            self._ahead = None
        elif self._prefilling and self._pending:
            await self._engine.settle(session)
        self._prefilling = False

    async def _work_ahead(self, session: "Session", num_tokens: int) -> None:
        if num_tokens > 0:
            with self._engine.decode(session, num_tokens, ahead=True) as outcomes:
                async for _ in outcomes:
                    pass

    def _cancel_ahead(self) -> None:
        if self._ahead:
            self._ahead.cancel()
