"""The Verify stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from secrets import token_hex
from typing import Any

import grpc
import structlog

from shared.errors import InvalidFieldError, OutOfOrderError
from shared.model.engine.engine import Engine
from shared.model.engine.session import Session
from shared.model.settings import EngineSettings
from shared.namespace import check_namespace
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPENED, errors_as_status
from shared.sampling_params import SamplingParams
from shared.streams import Streams

log = structlog.get_logger()

FASTEST_PROGRESS_SECONDS = 0.1

VerifyContext = grpc.aio.ServicerContext[pb.VerifyRequest, pb.VerifyResponse]
InfoContext = grpc.aio.ServicerContext[pb.TargetServiceGetModelInfoRequest, pb.TargetServiceGetModelInfoResponse]


class TargetServicer(pb_grpc.TargetServiceServicer):
    """Verifies draft tokens with the target model."""

    def __init__(self, engine: Engine, settings: EngineSettings) -> None:
        """Serve the engine's model."""
        self._engine = engine
        self._incarnation = token_hex(8)
        self._streams = Streams(engine.info.num_slots, settings.max_waiting, settings.idle_seconds)

    async def GetModelInfo(
        self,
        request: pb.TargetServiceGetModelInfoRequest,
        context: InfoContext,
    ) -> pb.TargetServiceGetModelInfoResponse:
        """Describe the target model."""
        return pb.TargetServiceGetModelInfoResponse(model_info=self._engine.info)

    async def Verify(  # type: ignore[override]  # the generated base leaves sync or async open
        self, request_iterator: AsyncIterator[pb.VerifyRequest], context: VerifyContext
    ) -> None:
        """Hold one session: `open`, which is answered as soon as it has a slot, then one `verify` a round."""
        async with errors_as_status(context), AsyncExitStack() as held:
            info = self._engine.info
            opened = pb.Opened(
                identity=info.identity,
                max_length=info.max_length,
                max_draft_tokens=info.max_draft_tokens,
                incarnation=self._incarnation,
            )
            await context.send_initial_metadata(((OPENED, opened.SerializeToString()),))
            stream = held.enter_context(self._streams.admitted())
            requests, write = stream.requests(request_iterator), stream.writer(context.write)
            first = await anext(requests, None)
            if first is None:
                return
            if first.WhichOneof("message") != "open":
                raise OutOfOrderError("message: the first one of a stream is `open`")
            session = await held.enter_async_context(self._session(first.open))
            opened.num_cached = session.reused
            await write(pb.VerifyResponse(opened=opened))
            rounds = Rounds(self._engine, session, first.open)
            async for request in requests:
                if request.WhichOneof("message") != "verify":
                    raise OutOfOrderError("message: after `open`, each one is `verify`")
                if request.verify.round or not first.open.progress_ms:
                    response = await rounds.verify(request.verify)
                else:
                    every_seconds = max(first.open.progress_ms / 1000, FASTEST_PROGRESS_SECONDS)
                    response = await _telling(rounds.verify(request.verify), session, every_seconds, write)
                await write(response)
                if response.finish_reason:
                    return

    @asynccontextmanager
    async def _session(self, opening: pb.VerifyOpen) -> AsyncIterator[Session]:
        params = SamplingParams.from_pb(opening.sampling)
        self._check_max_tokens(opening)
        self._check_logit_bias(params)
        max_wait_seconds = opening.max_wait_ms / 1000 if opening.HasField("max_wait_ms") else inf
        if max_wait_seconds < 0:
            raise InvalidFieldError("max_wait_ms", f"{opening.max_wait_ms} is not at least 0")
        if opening.progress_ms < 0:
            raise InvalidFieldError("progress_ms", f"{opening.progress_ms} is not at least 0")
        namespace = check_namespace(opening.namespace)
        async with self._engine.session(opening.prompt_token_ids, params, max_wait_seconds, namespace) as session:
            yield session

    def _check_max_tokens(self, opening: pb.VerifyOpen) -> None:
        if opening.max_tokens < 1:
            raise InvalidFieldError("max_tokens", f"{opening.max_tokens} is not at least 1")
        total, limit = len(opening.prompt_token_ids) + opening.max_tokens, self._engine.info.max_length
        if len(opening.prompt_token_ids) < limit < total:
            raise InvalidFieldError("max_tokens", f"with the prompt {total} tokens, the context is {limit}")

    def _check_logit_bias(self, params: SamplingParams) -> None:
        for token_id in params.logit_bias:
            if not 0 <= token_id < self._engine.info.vocab_size:
                problem = f"no token of the vocabulary of {self._engine.info.vocab_size}"
                raise InvalidFieldError(f"logit_bias.{token_id}", problem)


async def _telling(
    verifying: Coroutine[Any, Any, pb.VerifyResponse],
    session: Session,
    every_seconds: float,
    write: Callable[[pb.VerifyResponse], Awaitable[None]],
) -> pb.VerifyResponse:
    """Return the response of a round, and until it is there, tell how much of the prompt has been run."""
    task = asyncio.create_task(verifying)
    try:
        while not (await asyncio.wait((task,), timeout=every_seconds))[0]:
            await write(pb.VerifyResponse(num_prefilled=session.cached))
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Rounds:
    """The rounds of one session."""

    def __init__(self, engine: Engine, session: Session, opening: pb.VerifyOpen) -> None:
        """Start at round 0."""
        self._engine, self._session = engine, session
        self._prompt_ids = opening.prompt_token_ids
        self._round = 0
        self._end = len(opening.prompt_token_ids) + opening.max_tokens

    async def verify(self, request: pb.VerifyDraft) -> pb.VerifyResponse:
        """Run one round. Raises OutOfOrderError, InvalidFieldError."""
        prompt_logprobs = await self._score()
        session, position = self._session, len(self._session.token_ids)
        if request.round != self._round:
            raise OutOfOrderError(f"round: {request.round} where {self._round} is next")
        if request.position != position:
            raise OutOfOrderError(f"position: {request.position} where {position} tokens are committed")
        k = len(request.draft_token_ids)
        if k > self._engine.info.max_draft_tokens:
            raise InvalidFieldError("draft_token_ids", f"{k} of them, at most {self._engine.info.max_draft_tokens}")
        self._engine.check_token_ids("draft_token_ids", request.draft_token_ids)
        # The round commits one token more than it accepts, so the last token that max_tokens allows needs no draft.
        draft_ids = request.draft_token_ids[: self._end - position - 1]
        outcome = await self._engine.verify(session, draft_ids)
        self._round += 1
        return pb.VerifyResponse(
            round=request.round,
            position=position,
            num_accepted=outcome.verdict.num_accepted,
            token_ids=outcome.verdict.token_ids,
            finish_reason=self._finish_reason(),
            timing=outcome.timing,
            logprobs=outcome.verdict.logprobs,
            prompt_logprobs=prompt_logprobs,
            num_cached=0 if request.round else session.reused,
        )

    async def _score(self) -> list[pb.TokenLogprobs]:
        """Verify the rest of the prompt, which the session does not have yet, as draft tokens that cannot be wrong."""
        logprobs: list[pb.TokenLogprobs] = []
        while rest := self._prompt_ids[len(self._session.token_ids) :]:
            k = min(len(rest) - 1, self._engine.info.max_draft_tokens)
            logprobs += (await self._engine.verify(self._session, rest[:k])).verdict.logprobs
        return logprobs

    def _finish_reason(self) -> pb.FinishReason.ValueType:
        if self._session.ended:
            return pb.FINISH_REASON_STOP
        return pb.FINISH_REASON_LENGTH if len(self._session.token_ids) == self._end else pb.FINISH_REASON_UNSPECIFIED
