"""The gateway's side of the target service."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import grpc
import structlog

from shared.errors import InvalidFieldError, NoFreeSlotError, NoTokenError, OutriderError
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPTIONS
from shared.sampling_params import SamplingParams

VerifyCall = grpc.aio.StreamStreamCall[pb.VerifyRequest, pb.VerifyResponse]

log = structlog.get_logger()

PAUSES_SECONDS = (0.0, 0.2, 1.0)  # before another replica is tried, round_robin's next
ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)  # of a write to a stream that has ended: reading says why


class TargetUnavailableError(OutriderError):
    """The target service cannot be reached, or it failed."""


class TargetSession:
    """One sequence being decoded by the target service.

    When its replica is lost it goes on at another one, which is given all that was committed as its prompt. A token
    depends on seed and position, so what was committed stays true, and the client sees a pause.
    """

    def __init__(
        self, start: Callable[[], VerifyCall], prompt_ids: Sequence[int], params: SamplingParams, max_tokens: int
    ) -> None:
        """Prepare; `open` starts the stream."""
        self._start = start
        self._token_ids = list(prompt_ids)
        self._end = len(prompt_ids) + max_tokens
        output_start = len(prompt_ids) if params.output_start is None else params.output_start
        self._params = replace(params, output_start=output_start)
        self._begun = False

    async def open(self) -> None:
        """Start a stream with what is committed so far."""
        self._call = self._start()
        self._round = 0
        opening = pb.VerifyOpen(
            prompt_token_ids=self._token_ids,
            sampling=self._params.to_pb(),
            max_tokens=self._end - len(self._token_ids),
        )
        with suppress(*ENDED):
            await self._call.write(pb.VerifyRequest(open=opening))

    async def verify(self, draft_ids: Sequence[int]) -> pb.VerifyResponse:
        """Run one round. Raises what `TargetClient.session` raises."""
        for pause_seconds in PAUSES_SECONDS:
            try:
                return await self._verify(draft_ids)
            except (TargetUnavailableError, NoFreeSlotError) as error:
                if isinstance(error, NoFreeSlotError) and not self._begun:
                    raise  # there is nothing to lose yet
                log.warning("target lost: the session goes on at another replica", reason=str(error))
            self.close()
            await asyncio.sleep(pause_seconds)
            await self.open()
        return await self._verify(draft_ids)

    def close(self) -> None:
        """End the stream."""
        self._call.cancel()

    async def _verify(self, draft_ids: Sequence[int]) -> pb.VerifyResponse:
        with _status_as_error():
            request = pb.VerifyDraft(round=self._round, position=len(self._token_ids), draft_token_ids=draft_ids)
            with suppress(*ENDED):
                await self._call.write(pb.VerifyRequest(verify=request))
            response = await self._call.read()
            if not isinstance(response, pb.VerifyResponse):  # the stream ended: its status says why
                raise TargetUnavailableError(f"the target ended the stream: {await self._call.details()}")
        self._round += 1
        self._token_ids += response.token_ids
        if not self._begun:  # the first round tells the log-probabilities of the prompt, once
            self._params, self._begun = replace(self._params, prompt_logprobs=False), True
        return response


class TargetClient:
    """The target service."""

    def __init__(self, address: str) -> None:
        """Connect in the background to `host:port`, or to all replicas of a name such as `dns:///host:port`."""
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._stub = pb_grpc.TargetServiceStub(self._channel)

    async def model_info(self, timeout_seconds: float) -> pb.ModelInfo:
        """Ask what is served, waiting for the service to come up. Raises TargetUnavailableError."""
        with _status_as_error():
            request = pb.TargetServiceGetModelInfoRequest()
            answer = await self._stub.GetModelInfo(request, timeout=timeout_seconds, wait_for_ready=True)
            return answer.model_info

    @asynccontextmanager
    async def session(
        self, prompt_ids: Sequence[int], params: SamplingParams, max_tokens: int
    ) -> AsyncIterator[TargetSession]:
        """Hold a session for the length of the block.

        Raises InvalidFieldError, NoFreeSlotError, NoTokenError, TargetUnavailableError.
        """
        session = TargetSession(self._stub.Verify, prompt_ids, params, max_tokens)
        try:
            await session.open()
            yield session
        finally:
            session.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


@contextmanager
def _status_as_error() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        details = error.details() or error.code().name
        match error.code():
            case grpc.StatusCode.INVALID_ARGUMENT:
                field, _, problem = details.partition(": ")
                raise InvalidFieldError(field, problem) from error
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                metadata = dict(error.trailing_metadata() or ())
                raise NoFreeSlotError(details, int(metadata.get("grpc-retry-pushback-ms", 1000))) from error
            case grpc.StatusCode.DATA_LOSS:
                raise NoTokenError(details) from error
            case _:
                raise TargetUnavailableError(f"target service: {details}") from error
