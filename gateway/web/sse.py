"""Server-sent events, and what happens when the client disconnects."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Literal, ParamSpec, Self, TypeVar

from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from gateway.generation.errors import RequestTimeoutError
from gateway.web.deadline import deadline_of
from gateway.web.errors import api_error
from gateway.work_pool import WorkPool

P = ParamSpec("P")
T = TypeVar("T")

LINE_ENDS = {char: f"\\u{ord(char):04x}" for char in "\x7f\x85\u2028\u2029"}
"""Characters that JSON may have as they are, and at which some clients end a line."""
Json = dict[str, Any]
Api = Literal["chunks", "infill", "responses", "messages"]
NAMED = frozenset({"responses", "messages"})
"""Those whose events have names."""
SILENCE_SECONDS = 15  # that a client has to wait, for a header or for a comment
COMMENT, DONE = ": the model is at work\n\n", "data: [DONE]\n\n"


def event(data: dict[str, Any], *, named: bool = False) -> str:
    """Return one event, named by its `type` if `named`."""
    name = f"event: {data['type']}\n" if named else ""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for char, escaped in LINE_ENDS.items():
        text = text.replace(char, escaped)
    return f"{name}data: {text}\n\n"


class EventStream(StreamingResponse):
    """Sends events as they come, then `[DONE]` if it is of chunks. An error becomes the last event, lateness too.

    While none comes there are comments, for a proxy may end what is silent: while a prompt is read, or a hidden thought
    is written. The generator is closed whatever happens: a client's disconnecting ends the decoding.
    """

    media_type = "text/event-stream"

    def __init__(
        self, first: asyncio.Future[Json], rest: AsyncGenerator[Json], api: Api, headers: dict[str, str]
    ) -> None:
        """Continue a generator whose first item is being waited for."""
        super().__init__(self._events(), headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | headers)
        self._next, self._rest, self._api = first, rest, api
        self._number = -1  # of the last event

    @classmethod
    async def begin(
        cls,
        request: Request,
        events: AsyncGenerator[Json],
        opened: asyncio.Event,
        api: Api,
        headers: dict[str, str],
    ) -> Self:
        """Return the stream as soon as there is an event, or the target has opened a session, or a while has passed.

        Until then an error is raised, and can become an HTTP status. Raises ClientDisconnect.
        """
        first, opening = asyncio.ensure_future(anext(events)), asyncio.ensure_future(opened.wait())
        waiting = asyncio.wait((first, opening), timeout=SILENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        stream = cls(first, events, api, headers)
        try:
            await unless_disconnected(request, waiting)
            if first.done():
                first.result()
        except BaseException:
            await stream.close()
            raise
        finally:
            opening.cancel()
        return stream

    async def close(self) -> None:
        """End the decoding."""
        self._next.cancel()
        await asyncio.gather(self._next, return_exceptions=True)
        await self._rest.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as the client stays for and the request has time for."""
        try:
            async with asyncio.timeout_at(deadline_of(scope)) as timer:
                await super().__call__(scope, receive, send)
        except TimeoutError:
            if not timer.expired():
                raise
            last = self._failure(RequestTimeoutError())
            await send({"type": "http.response.body", "body": last.encode(), "more_body": False})
        finally:
            await self.close()

    async def _events(self) -> AsyncIterator[str]:
        try:
            while True:
                while not (await asyncio.wait((self._next,), timeout=SILENCE_SECONDS))[0]:
                    yield COMMENT
                yield self._event(self._next.result())
                self._next = asyncio.ensure_future(anext(self._rest))
        except StopAsyncIteration:
            if self._api == "chunks":
                yield DONE
        except Exception as error:  # noqa: BLE001  # api_error logs unexpected errors
            yield self._failure(error)

    def _event(self, item: Json) -> str:
        self._number += 1
        return event(item, named=self._api in NAMED)

    def _failure(self, error: Exception) -> str:
        failed = api_error(error)
        match self._api:
            case "chunks" | "infill":
                return event(failed.body)
            case "messages":
                return event(failed.messages_body, named=True)
        return event(failed.body["error"] | {"type": "error", "sequence_number": self._number + 1}, named=True)


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Return what the work returns, or cancel it and raise ClientDisconnect as soon as the client is gone.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def run_in_pool(request: Request, pool: WorkPool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the work returns. While it waits for a thread, the client's leaving takes its place away.

    The request's body must have been read: where it is long, the work may be. Raises ClientDisconnect and
    OverloadedError.
    """
    long = getattr(request.state, "long", False)
    running = pool.run(partial(work, *args, **kwargs), long=long)
    return await (unless_disconnected(request, running) if pool.busy(long=long) else running)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
