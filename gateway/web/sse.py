"""Server-sent events, and what happens when the client disconnects."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, ParamSpec, TypeVar

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
DONE = "data: [DONE]\n\n"


def event(data: dict[str, Any], *, named: bool = False) -> str:
    """Return one event, named by its `type` if `named`."""
    name = f"event: {data['type']}\n" if named else ""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for char, escaped in LINE_ENDS.items():
        text = text.replace(char, escaped)
    return f"{name}data: {text}\n\n"


class EventStream(StreamingResponse):
    """Sends `first`, then `rest`, then `[DONE]` unless events are named. An error becomes the last event, lateness too.

    `rest` is closed whatever happens: a client's disconnecting ends the decoding.
    """

    media_type = "text/event-stream"

    def __init__(self, first: dict[str, Any], rest: AsyncGenerator[dict[str, Any]], *, named: bool = False) -> None:
        """Continue a generator whose first item was taken while an error could still become an HTTP status."""
        super().__init__(self._events(first), headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._rest, self._named = rest, named
        self._number = first.get("sequence_number", 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as the client stays for and the request has time for."""
        async with aclosing(self._rest):
            try:
                async with asyncio.timeout_at(deadline_of(scope)) as timer:
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                if not timer.expired():
                    raise
                last = self._failure(RequestTimeoutError())
                await send({"type": "http.response.body", "body": last.encode(), "more_body": False})

    async def _events(self, first: dict[str, Any]) -> AsyncIterator[str]:
        yield event(first, named=self._named)
        try:
            async for item in self._rest:
                self._number += 1
                yield event(item, named=self._named)
        except Exception as error:  # noqa: BLE001  # api_error logs unexpected errors
            yield self._failure(error)
        else:
            if not self._named:
                yield DONE

    def _failure(self, error: Exception) -> str:
        body = api_error(error).body
        named = body["error"] | {"type": "error", "sequence_number": self._number + 1}
        return event(named, named=True) if self._named else event(body)


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
