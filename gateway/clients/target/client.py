"""The gateway's side of the target service."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import grpc

from gateway.clients.deadlines import Deadlines
from gateway.clients.errors import TargetUnavailableError
from gateway.clients.target.replicas import Replicas
from gateway.clients.target.session import TargetSession
from gateway.clients.target.stream import TargetStream
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPTIONS
from shared.sampling_params import SamplingParams

CONNECTING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


class TargetClient:
    """The target service."""

    def __init__(self, address: str, *, one_identity: bool = False, deadlines: Deadlines | None = None) -> None:
        """Connect in the background to `host:port`, or to all replicas of a name such as `dns:///host:port`.

        Sessions open on replicas of the model that `model_info` returned; with `one_identity`, only on those where
        everything else that decides tokens is the same too.
        """
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._stub = pb_grpc.TargetServiceStub(self._channel)
        self._deadlines = deadlines or Deadlines()
        self.replicas = Replicas(one_identity=one_identity)

    async def model_info(self, timeout_seconds: float) -> pb.ModelInfo:
        """Return what is served, waiting for the service to come up. Raises TargetUnavailableError."""
        request = pb.TargetServiceGetModelInfoRequest()
        try:
            answer = await self._stub.GetModelInfo(request, timeout=timeout_seconds, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise TargetUnavailableError(f"target service: {error.details() or error.code().name}") from error
        self.replicas.reference = answer.model_info
        return answer.model_info

    async def reachable(self) -> bool:
        """Return whether any replica is connected, giving one that is just being connected to a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while (state := self._channel.get_state(try_to_connect=True)) in CONNECTING:
                    await self._channel.wait_for_state_change(state)
        return state is grpc.ChannelConnectivity.READY

    @asynccontextmanager
    async def session(
        self, prompt_ids: Sequence[int], params: SamplingParams, max_tokens: int, namespace: str = ""
    ) -> AsyncIterator[TargetSession]:
        """Hold a session for the length of the block.

        Raises InvalidFieldError, NoFreeSlotError, NoTokenError, TargetUnavailableError.
        """
        session = TargetSession(self._stream, self.replicas, prompt_ids, params, max_tokens, namespace=namespace)
        session.open()
        try:
            yield session
        finally:
            session.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    def _stream(self) -> TargetStream:
        return TargetStream(self._stub.Verify(), self._deadlines)
