"""The time that a request may take as a whole."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.generation.errors import RequestTimeoutError


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
            if message["type"] == "http.response.start" and not timer.expired():
                timer.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout_at(deadline) as timer:
                await self._app(scope, receive, send_in_time)
        except TimeoutError as error:
            if timer.expired():
                raise RequestTimeoutError from error
            raise


def deadline_of(scope: Scope) -> float | None:
    """Return when, in the event loop's time, the answer to this request has to end."""
    deadline: float | None = scope.get("state", {}).get("deadline")
    return deadline
