"""A client's connection, on which nothing waits for ever and of which there are not too many."""

import asyncio
import math
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import h11
from starlette.types import Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.settings import GatewaySettings
from gateway.web.access import PROBES
from gateway.web.errors import ApiError

HEAD_BYTES = 16 * 1024  # the longest head of a request, and the most that may come ahead of the last one's answer
FEW_CHUNKS, CHUNK_BYTES = 1000, 64  # a body may have this many chunks of any size, and then one for each 64 bytes
UNREAD_BYTES = 128 * 1024  # the system keeps for a client who reads slowly; left to itself it would keep megabytes
READ_BYTES_A_SECOND = 1024  # who reads more slowly does not read
SPARE = 64  # connections over the limit, so that probes get in

LATE = ApiError(408, "the request did not arrive in time", code="request_timeout")
CROWDED = ApiError(
    503,
    "too many requests are being answered",
    "service_unavailable",
    code="too_many_connections",
    headers={"Retry-After": "1", "Connection": "close"},
)


class _Parser(h11.Connection):
    """Refuses a head that is too long, and a body in countless small chunks, which cost far more than their bytes."""

    _num_chunks = _num_bytes = 0

    @override
    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._num_chunks = self._num_bytes = 0
            fields = sum(len(name) + len(value) + len(": \r\n") for name, value in event.headers)
            # h11 itself measures a head only while some of it is missing.
            if len(event.method) + len(event.target) + fields > HEAD_BYTES:
                raise h11.RemoteProtocolError("the head is too long")
        elif isinstance(event, h11.Data):
            self._num_chunks += event.chunk_start
            self._num_bytes += len(event.data)
            if self._num_chunks > FEW_CHUNKS + self._num_bytes // CHUNK_BYTES:
                raise h11.RemoteProtocolError("the chunks are too small")
        return event


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with deadlines for what a client sends and reads, and a limit of connections.

    At the limit, the one that has waited for its client longest gives way to a new one. If all are being answered, the
    new one may ask the probes alone.
    """

    settings: ClassVar[GatewaySettings]
    max_connections: ClassVar[int]
    waiting: ClassVar[dict["BoundedProtocol", None]]
    """The connections that wait for their clients to send something, in the order in which they began to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*args, **kwargs)
        self.conn = _Parser(h11.SERVER, HEAD_BYTES)
        self._serve, self.app = self.app, self._answer
        self._awaited: object = None
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` as soon as the system takes no more
        self._set_up(transport.get_extra_info("socket"))
        self._follow()
        if len(self.connections) > self.max_connections and len(self.waiting) > SPARE:
            next(iter(self.waiting)).close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.waiting.pop(self, None)
        for timer in (self._sending, self._reading):
            if timer:
                timer.cancel()

    @override
    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), HEAD_BYTES):  # the parser checks a head's length before it parses the rest
            if not self.transport.is_closing():
                super().data_received(data[start : start + HEAD_BYTES])
        self._follow()
        if self.flow.read_paused and self.conn.their_state is not h11.SEND_BODY:
            # uvicorn stops reading while a request waits for the one before. Then nobody would notice the client leave.
            if len(self.conn.trailing_data[0]) > HEAD_BYTES:
                self.transport.abort()
            else:
                self.flow.resume_reading()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow()

    @override
    def timeout_keep_alive_handler(self) -> None:
        """Do nothing: `_follow` has a deadline for this, too."""

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, msg))

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._follow_reader()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading:
            self._reading.cancel()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        busy = len(self.connections) - len(self.waiting)
        app = self._serve if busy <= self.max_connections or scope["path"] in PROBES else CROWDED.response
        await app(scope, receive, send)

    def _set_up(self, connection: socket.socket) -> None:
        """Have the system keep little for a client who does not read, and notice one who has vanished."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            seconds = self.settings.reader_timeout_seconds
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(math.ceil(seconds / 2), 1))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(math.ceil(seconds / 6), 1))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(seconds * 1000))

    def _follow(self) -> None:
        """Give the client its time for what it has to send next, if that has changed."""
        due = self._due()
        if (self.cycle, due) == self._awaited:
            return
        self._awaited = self.cycle, due
        if self._sending:
            self._sending.cancel()
        if not due:
            self.waiting.pop(self, None)
        elif not self.transport.is_closing():
            self.waiting.setdefault(self)
            self._sending = self.loop.call_later(*due)

    def _due(self) -> tuple[float, Callable[[], None]] | None:
        """Return how many seconds the client has for what it has to send next, and what happens then."""
        if self.conn.their_state is h11.SEND_BODY:
            return self.settings.body_timeout_seconds, self._refuse
        if self.conn.their_state is not h11.IDLE:
            return None
        if self.conn.trailing_data[0]:
            return self.settings.head_timeout_seconds, self._refuse
        return self.settings.idle_timeout_seconds, self.close

    def _follow_reader(self) -> None:
        """Give the client its time to read what was written."""
        self._unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.settings.reader_timeout_seconds, self._check_reader)

    def _check_reader(self) -> None:
        read = self._unread - self.transport.get_write_buffer_size()
        if read < self.settings.reader_timeout_seconds * READ_BYTES_A_SECOND:
            self.transport.abort()
        else:
            self._follow_reader()

    def _refuse(self, error: ApiError = LATE) -> None:
        """Answer with an error, unless an answer has begun, and close."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE} and not self.transport.is_closing():
            response = error.response
            headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
            with suppress(h11.LocalProtocolError):  # an answer to HEAD may have no body
                for event in (
                    h11.Response(status_code=response.status_code, headers=headers),
                    h11.Data(data=bytes(response.body)),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event))
        self.close()

    def close(self) -> None:
        """Close it as soon as all that was written is sent."""
        self.waiting.pop(self, None)
        self.transport.close()


def bounded(settings: GatewaySettings, max_connections: int) -> type[BoundedProtocol]:
    """Return the protocol of one server."""
    own = {"settings": settings, "max_connections": max_connections, "waiting": {}}
    return type("Bounded", (BoundedProtocol,), own)
