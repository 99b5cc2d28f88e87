"""A client that goes while a service still works for it."""

import asyncio
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import errors_as_status
from shared.streams import Stream


class Writing(pb_grpc.DraftServiceServicer):
    """Writes a proposal, from a task of its own, to a client that has gone."""

    def __init__(self) -> None:
        """Begin with nothing written."""
        self.ended = asyncio.Event()

    async def GetModelInfo(self, request: Any, context: Any) -> pb.DraftServiceGetModelInfoResponse:
        """Tell nothing."""
        return pb.DraftServiceGetModelInfoResponse()

    async def Draft(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # sync or async
        """Write until it fails, whatever cancels the RPC."""
        await asyncio.shield(asyncio.create_task(self._write(context)))

    async def _write(self, context: Any) -> None:
        write = Stream(10).writer(context.write)
        try:
            async with errors_as_status(context):
                while True:
                    await write(pb.DraftResponse(token_ids=[5]))
        finally:
            self.ended.set()


async def test_a_client_that_goes_while_it_is_written_to(caplog: pytest.LogCaptureFixture) -> None:
    """That is no fault of the service: its log has no traceback."""
    server, servicer = grpc.aio.server(), Writing()
    pb_grpc.add_DraftServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with capture_logs() as events:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = pb_grpc.DraftServiceStub(channel).Draft()
            await call.read()
            call.cancel()
            async with asyncio.timeout(10):
                await servicer.ended.wait()
    await server.stop(None)
    assert [event["log_level"] for event in events] == ["info"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
