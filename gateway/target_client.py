"""The gateway's side of the target service."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import grpc

from shared.errors import InvalidFieldError, NoFreeSlotError, OutriderError
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPTIONS
from shared.sampling_params import SamplingParams

VerifyCall = grpc.aio.StreamStreamCall[pb.VerifyRequest, pb.VerifyResponse]


class TargetUnavailableError(OutriderError):
    """The target service cannot be reached, or it failed."""


class TargetSession:
    """One sequence being decoded by the target service."""

    def __init__(self, call: VerifyCall, num_committed: int) -> None:
        """Take over a stream on which `open` has been sent, with a prompt of so many tokens."""
        self._call = call
        self._round = 0
        self._position = num_committed

    async def verify(self, draft_ids: Sequence[int]) -> pb.VerifyResponse:
        """Run one round. Raises what `TargetClient.session` raises."""
        with _status_as_error():
            request = pb.VerifyDraft(round=self._round, position=self._position, draft_token_ids=draft_ids)
            with suppress(asyncio.InvalidStateError):  # the stream has ended: reading says why
                await self._call.write(pb.VerifyRequest(verify=request))
            response = await self._call.read()
            if not isinstance(response, pb.VerifyResponse):  # the stream ended: its status says why
                raise TargetUnavailableError(f"the target ended the stream: {await self._call.details()}")
        self._round += 1
        self._position += len(response.token_ids)
        return response


class TargetClient:
    """The target service."""

    def __init__(self, address: str) -> None:
        """Connect to `host:port` in the background."""
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

        Raises InvalidFieldError, NoFreeSlotError, TargetUnavailableError.
        """
        call = self._stub.Verify()
        try:
            opening = pb.VerifyOpen(prompt_token_ids=prompt_ids, sampling=params.to_pb(), max_tokens=max_tokens)
            with _status_as_error():
                await call.write(pb.VerifyRequest(open=opening))
            yield TargetSession(call, len(prompt_ids))
        finally:
            call.cancel()

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
            case _:
                raise TargetUnavailableError(f"target service: {details}") from error
