"""Reads the bodies of requests, within bounds and off the event loop."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from gateway.requests.json_text import JsonTextError, parse_json
from gateway.web.sse import run_in_pool
from gateway.work_pool import WorkPool
from shared.errors import InvalidFieldError

B = TypeVar("B", bound=BaseModel)
LINGER_SECONDS, LINGER_BODIES = 2, 16  # how long, and how many times the most bytes of a body

LONG = 2**17
"""The work for a body of more bytes may be long."""
LARGE, MAX_LARGE = 2**20, 16
"""Only so many bodies of more bytes are in memory at once; the others wait, unread, and hold up no smaller ones."""


class Bodies:
    """Reads bodies of at most `max_bytes` and `max_values`."""

    def __init__(self, pool: WorkPool, max_bytes: int, max_values: int) -> None:
        """Have them parsed and validated in this pool."""
        self._pool, self._max_bytes, self._max_values = pool, max_bytes, max_values
        self._large = asyncio.Semaphore(MAX_LARGE)

    async def read(self, request: Request, kind: type[B]) -> B:
        """Return the body.

        Raises HTTPException, RequestValidationError, InvalidFieldError, OverloadedError, and ClientDisconnect.
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json" and not content_type.endswith("+json"):
            # So that no page of another site can ask without the browser's asking first.
            raise HTTPException(400, "The body is not valid: its Content-Type is not application/json")
        async with AsyncExitStack() as held:
            parts = await self._parts(request, held)
            return await run_in_pool(request, self._pool, _parsed, parts, kind, self._max_values)

    async def _parts(self, request: Request, held: AsyncExitStack) -> list[bytes]:
        announced = request.headers.get("content-length", "")
        parts, size = [], int(announced[:20]) if announced.isdecimal() else 0
        if size <= self._max_bytes:
            size = 0
            async for part in request.stream():
                if size <= LARGE < size + len(part):
                    await held.enter_async_context(self._large)
                size += len(part)
                if size > self._max_bytes:
                    break
                parts.append(part)
        if size > self._max_bytes:
            await self._linger(request)
            raise HTTPException(413, f"The body is larger than {self._max_bytes} bytes", {"Connection": "close"})
        request.state.long = size > LONG
        return parts

    async def _linger(self, request: Request) -> None:
        """Drop some more of a body: a client that is still sending sees no answer, but a broken connection."""
        left = LINGER_BODIES * self._max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and (message := await request.receive()).get("more_body"):
                    left -= len(message["body"])


def body_route(bodies: Bodies) -> type[APIRoute]:
    """Return the class of routes whose endpoints take a `body` that these read, and the request.

    FastAPI itself describes the body, but would read any, and validate it on the event loop.
    """

    class BodyRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            body = inspect.signature(self.endpoint).parameters.get("body")
            if body is None:
                return super().get_route_handler()

            async def handle(request: Request) -> Response:
                response: Response = await self.endpoint(await bodies.read(request, body.annotation), request)
                return response

            return handle

    return BodyRoute


def _parsed(parts: list[bytes], kind: type[B], max_values: int) -> B:
    try:
        value = parse_json(b"".join(parts), max_values)
    except JsonTextError as error:
        if error.path:
            raise InvalidFieldError(".".join(map(str, error.path)), error.problem) from error
        raise HTTPException(400, f"The body is not valid: it {error.problem}") from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems = [problem | {"loc": ("body", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RequestValidationError(problems, body=value) from error
