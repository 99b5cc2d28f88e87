"""Wraps the handling of every request."""

from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.web.errors import api_error


class RequestScope:
    """Gives each request an id, in log lines and in OpenAI's and Anthropic's header, and makes unexpected errors a 500.

    Plain ASGI: Starlette's BaseHTTPMiddleware would hide that the client has disconnected.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap this application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, started = uuid4().hex, False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers["request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                if started:
                    raise
                await api_error(error).response_at(scope["path"])(scope, receive, send_with_id)
