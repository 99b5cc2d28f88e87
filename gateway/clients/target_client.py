"""The gateway's side of the target service."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import grpc
import structlog

from gateway.clients.errors import OtherReplicaError, TargetUnavailableError
from gateway.clients.identity import WHOLE, differing
from gateway.clients.replicas import Replicas
from shared.errors import InvalidFieldError, NoFreeSlotError, NoTokenError
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPTIONS
from shared.sampling_params import SamplingParams

VerifyCall = grpc.aio.StreamStreamCall[pb.VerifyRequest, pb.VerifyResponse]

log = structlog.get_logger()

PAUSES_SECONDS = (0.0, 0.2, 1.0)  # before trying another replica, round_robin's next
OTHERS = 8  # this many wrong replicas are passed over before a pause
ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)  # from a write to a stream that has ended: reading says why


class TargetSession:
    """One sequence being decoded by the target service.

    When its replica is lost, it continues on another one, which gets everything committed so far as its prompt. A token
    depends on seed and position, so what was committed stays true, and the client sees only a pause. The other replica
    must have the same identity; otherwise the tokens to come would depend on whether a replica was lost.
    """

    def __init__(
        self,
        start: Callable[[], VerifyCall],
        replicas: Replicas,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        max_tokens: int,
    ) -> None:
        """Prepare; `open` starts the stream."""
        self._start, self._replicas = start, replicas
        self._token_ids = array("i", prompt_ids)  # a list takes nine times as much while it waits for a slot
        self._end = len(prompt_ids) + max_tokens
        output_start = len(prompt_ids) if params.output_start is None else params.output_start
        self._params = replace(params, output_start=output_start)
        self._begun = False
        self.identity = pb.ModelIdentity()
        """Who decodes; known once a round is done, and the same for all of them."""

    async def open(self) -> None:
        """Start a stream with what is committed so far."""
        self._call = self._start()
        self._opened, self._round = False, 0
        opening = pb.VerifyOpen(
            prompt_token_ids=self._token_ids,
            sampling=self._params.to_pb(),
            max_tokens=self._end - len(self._token_ids),
        )
        with suppress(*ENDED):
            await self._call.write(pb.VerifyRequest(open=opening))

    async def verify(self, draft_ids: Sequence[int]) -> pb.VerifyResponse:
        """Run one round. Raises what `TargetClient.session` raises."""
        pauses, num_others = iter(PAUSES_SECONDS), 0
        while True:
            try:
                return await self._verify(draft_ids)
            except OtherReplicaError:
                num_others += 1
                pause_seconds = next(pauses, None) if num_others % OTHERS == 0 else 0.0
                if pause_seconds is None:
                    raise
            except (TargetUnavailableError, NoFreeSlotError) as error:
                pause_seconds = next(pauses, None)
                if pause_seconds is None or (isinstance(error, NoFreeSlotError) and not self._begun):
                    raise  # nothing has begun, so there is nothing to lose yet
                log.warning("target lost: the session goes on at another replica", reason=str(error))
            self.close()
            await asyncio.sleep(pause_seconds)
            await self.open()

    def close(self) -> None:
        """End the stream."""
        self._call.cancel()

    async def _verify(self, draft_ids: Sequence[int]) -> pb.VerifyResponse:
        if not self._opened:
            self._take_up(await self._read_opened())
        request = pb.VerifyDraft(round=self._round, position=len(self._token_ids), draft_token_ids=draft_ids)
        with suppress(*ENDED):
            await self._call.write(pb.VerifyRequest(verify=request))
        response = await self._read()
        self._round += 1
        self._token_ids.extend(response.token_ids)
        if not self._begun:  # the first round reports the prompt's log-probabilities, once
            self._params, self._begun = replace(self._params, prompt_logprobs=False), True
        return response

    async def _read_opened(self) -> pb.Opened:
        try:
            return (await self._read()).opened
        except InvalidFieldError as error:
            self._replicas.check_refusal(self._end, error)
            raise

    def _take_up(self, opened: pb.Opened) -> None:
        """Continue with the replica that has answered `open`. Raises OtherReplicaError."""
        self._replicas.check(opened)
        identity = opened.identity
        if self._begun and (differ := differing(self.identity, identity, WHOLE)):
            problem = f"those that are there differ in {', '.join(differ)}"
            raise OtherReplicaError(f"the target's replica was lost, and no other one gives the same tokens: {problem}")
        self.identity, self._opened = identity, True

    async def _read(self) -> pb.VerifyResponse:
        with _status_as_error():
            response = await self._call.read()
            if not isinstance(response, pb.VerifyResponse):  # the stream ended: its status says why
                raise TargetUnavailableError(f"the target ended the stream: {await self._call.details()}")
        return response


class TargetClient:
    """The target service."""

    def __init__(self, address: str, *, one_identity: bool = False) -> None:
        """Connect in the background to `host:port`, or to all replicas of a name such as `dns:///host:port`.

        Sessions open on replicas of the model that `model_info` returned; with `one_identity`, only on those where
        everything else that decides tokens is the same too.
        """
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._stub = pb_grpc.TargetServiceStub(self._channel)
        self.replicas = Replicas(one_identity=one_identity)

    async def model_info(self, timeout_seconds: float) -> pb.ModelInfo:
        """Return what is served, waiting for the service to come up. Raises TargetUnavailableError."""
        with _status_as_error():
            request = pb.TargetServiceGetModelInfoRequest()
            answer = await self._stub.GetModelInfo(request, timeout=timeout_seconds, wait_for_ready=True)
        self.replicas.reference = answer.model_info
        return answer.model_info

    @asynccontextmanager
    async def session(
        self, prompt_ids: Sequence[int], params: SamplingParams, max_tokens: int
    ) -> AsyncIterator[TargetSession]:
        """Hold a session for the length of the block.

        Raises InvalidFieldError, NoFreeSlotError, NoTokenError, TargetUnavailableError.
        """
        session = TargetSession(self._stub.Verify, self.replicas, prompt_ids, params, max_tokens)
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
