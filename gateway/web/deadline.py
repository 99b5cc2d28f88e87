"""The time that a request may take as a whole."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.generation.errors import RequestTimeoutError

T = TypeVar("T")


class Deadline:
    """Raises RequestTimeoutError if an answer has not begun in time, and tells streams when they have to end.

    Plain ASGI, as RequestScope is.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        """Wrap this application."""
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        scope.setdefault("state", {})["deadline"] = deadline

        async def send_in_time(message: Message) -> None:
            if not timer.expired():
                timer.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout_at(deadline) as timer:
                await self._app(scope, receive, send_in_time)
        except TimeoutError as error:
            raise (RequestTimeoutError() if timer.expired() else error) from error


async def in_time(items: AsyncGenerator[T], scope: Scope) -> AsyncGenerator[T]:
    """Yield the items of an answer to this request. Raises RequestTimeoutError when they take too long."""
    deadline: float | None = scope.get("state", {}).get("deadline")
    while True:
        try:
            async with asyncio.timeout_at(deadline) as timer:
                item = await anext(items)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise (RequestTimeoutError() if timer.expired() else error) from error
        yield item
