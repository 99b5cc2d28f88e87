"""How a service's errors reach its clients."""

from typing import Any, NoReturn

import grpc
import pytest
from structlog.testing import capture_logs

from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import MAX_DETAILS, errors_as_status


class Failing(pb_grpc.TargetServiceServicer):
    """Raises one error."""

    def __init__(self, error: Exception) -> None:
        """Raise this one."""
        self._error = error

    async def GetModelInfo(self, request: Any, context: Any) -> NoReturn:
        """Do nothing: never called."""
        raise NotImplementedError

    async def Verify(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # sync or async
        """Raise it."""
        async with errors_as_status(context):
            raise self._error


@pytest.mark.parametrize(
    ("error", "code", "details", "event"),
    [
        (KeyError("ours"), grpc.StatusCode.INTERNAL, "internal error; the log has it", "rpc failed"),
        (ExceptionGroup("of tasks", [KeyError()]), grpc.StatusCode.INTERNAL, "internal error; the", "rpc failed"),
        (InvalidFieldError("a", "é" * 20_000), grpc.StatusCode.INVALID_ARGUMENT, "a: ééé", "rpc refused"),
        (InvalidFieldError("a", "\ud83d"), grpc.StatusCode.INVALID_ARGUMENT, "a: ?", "rpc refused"),
    ],
    ids=["a bug", "bugs", "long", "surrogate"],
)
async def test_errors_as_statuses(error: Exception, code: grpc.StatusCode, details: str, event: str) -> None:
    """Each ends its stream with a status and a line in the log, whatever it says and however long that is."""
    server = grpc.aio.server()
    pb_grpc.add_TargetServiceServicer_to_server(Failing(error), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = pb_grpc.TargetServiceStub(channel).Verify(iter([pb.VerifyRequest()]))
        with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    await server.stop(None)
    assert caught.value.code() is code
    text = caught.value.details() or ""
    assert text.startswith(details)
    assert len(text.encode()) <= MAX_DETAILS + len(" ...")
    assert logs[0]["event"] == event
    assert logs[0]["peer"].startswith("ipv4:")
