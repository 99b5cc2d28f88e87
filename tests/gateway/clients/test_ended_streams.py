"""A target that ends a stream while the gateway, whose event loop is busy, writes to it: what is told is the status."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from gateway.clients.deadlines import Deadlines
from gateway.clients.target.stream import TargetStream
from shared.errors import OutriderError
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPENED, OPTIONS


class Full(pb_grpc.TargetServiceServicer):
    """Says who it is, and that it has no room, before it reads anything; in threads, so that it never waits."""

    def GetModelInfo(self, request: Any, context: Any) -> pb.TargetServiceGetModelInfoResponse:
        """Tell nothing."""
        return pb.TargetServiceGetModelInfoResponse()

    def Verify(self, request_iterator: Any, context: Any) -> Iterator[pb.VerifyResponse]:
        """End the stream."""
        context.send_initial_metadata(((OPENED, pb.Opened(incarnation="a").SerializeToString()),))
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "1000"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "300 streams are open")
        yield pb.VerifyResponse()


@pytest.fixture
def address() -> Iterator[str]:
    """Serve the full target."""
    server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
    pb_grpc.add_TargetServiceServicer_to_server(Full(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


async def test_no_room(address: str) -> None:
    """However the write and the end meet, the target's own status is what the session learns."""
    opening, told = pb.VerifyOpen(prompt_token_ids=[5] * 1000), Counter[str]()
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        await channel.channel_ready()
        for number in range(300):
            call = pb_grpc.TargetServiceStub(channel).Verify()
            stream = TargetStream(call, Deadlines())
            await asyncio.sleep(0)  # it begins
            time.sleep(number % 10 / 1000)  # noqa: ASYNC251  # and meanwhile others keep the event loop
            try:
                await stream.open(opening, lambda _: None, introduces=True)
            except OutriderError as error:
                told[repr(error)] += 1
            stream.close()
    assert told == {"NoFreeSlotError('300 streams are open')": 300}
