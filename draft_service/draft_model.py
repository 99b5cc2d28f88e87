"""Proposes what the draft model says."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from draft_service.proposer import Ask
from shared.errors import InvalidFieldError
from shared.model.session import Session
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

if TYPE_CHECKING:  # a draft service without a model does without torch
    from shared.model.engine import Engine


class DraftModel:
    """Decodes past the committed tokens with the same noise as the target; what was committed then overwrites that.

    A round in which it is not asked costs it nothing: what was committed meanwhile is run when it is asked again.
    """

    def __init__(
        self, engine: "Engine", slot: AsyncExitStack, prompt_ids: Sequence[int], params: SamplingParams
    ) -> None:
        """Propose for this sequence; what `open` takes is given back with `slot`."""
        self._engine, self._slot, self._params = engine, slot, params
        self._news = list(prompt_ids)  # committed, and not yet in the session
        self._committed = 0  # how many tokens of the session are committed
        self._session: Session | None = None
        self._prefilling = False  # perhaps: then the session is not ours to write to

    async def open(self) -> Session:
        """Take a slot, unless it has one, and start to prefill. Raises what `Engine.session` raises."""
        if not self._session:
            self._session = await self._slot.enter_async_context(self._engine.session(self._news, self._params))
            self._committed, self._news, self._prefilling = len(self._news), [], True
        return self._session

    def commit(self, token_ids: Sequence[int]) -> None:
        """Take over tokens that joined the sequence. Raises InvalidFieldError if they are not for this model."""
        self._engine.check_token_ids("token_ids", token_ids)
        self._news.extend(token_ids)
        end, limit = self._committed + len(self._news), self._engine.info.max_length
        if end > limit:
            raise InvalidFieldError("token_ids", f"they end at {end}, the context is {limit}")

    async def propose(self, ask: Ask) -> AsyncGenerator[pb.DraftResponse, None]:
        """Yield the draft tokens one by one as they are made; fewer at a stop token or at the end of the context."""
        if not ask.num_draft_tokens:
            return
        session = await self.open()
        if self._news:
            if self._prefilling:
                await self._engine.settle(session)
            session.rewrite(self._committed, self._news)
            self._committed, self._news = len(session.token_ids), []
        self._prefilling = False
        if num_tokens := min(ask.num_draft_tokens, session.room):
            async with aclosing(self._engine.decode(session, num_tokens)) as outcomes:
                async for outcome in outcomes:
                    yield pb.DraftResponse(
                        token_ids=outcome.verdict.token_ids,
                        last=outcome.last,
                        timing=outcome.timing,
                        proposer=pb.PROPOSER_DRAFT_MODEL,
                    )

    def stop(self) -> None:
        """End the proposal that is being made, after the token that is being made."""
        if self._session:
            self._engine.withdraw(self._session)
