"""The errors that leave the gateway, and the OpenAI error of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from gateway.clients.errors import TargetUnavailableError
from gateway.generation.errors import ContextLengthError, ModelNotFoundError, RequestTimeoutError
from gateway.work_pool import OverloadedError
from shared.errors import DrainingError, InvalidFieldError, NoFreeSlotError, NoTokenError

log = structlog.get_logger()

MESSAGES = "/v1/messages"
MESSAGES_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
SERVER_ERRORS = 500
MAX_MESSAGE, MAX_PARAM = 2000, 200
"""The most characters of an error's message, and of the field's name: both may repeat what the client sent."""


@dataclass(frozen=True)
class ApiError:
    """An error as OpenAI's clients know it."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        message, param = _cut(self.message, MAX_MESSAGE), self.param and _cut(self.param, MAX_PARAM)
        return {"error": {"message": message, "type": self.type, "param": param, "code": self.code}}

    @property
    def messages_body(self) -> dict[str, Any]:
        """The JSON body as Anthropic's clients know it."""
        kind = MESSAGES_TYPES.get(self.status, "invalid_request_error" if self.status < SERVER_ERRORS else "api_error")
        return {"type": "error", "error": {"type": kind, "message": _cut(self.message, MAX_MESSAGE)}}

    @property
    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)

    def response_at(self, path: str) -> JSONResponse:
        """Return the HTTP response in the form of the API that has this path."""
        if path.startswith(MESSAGES):
            return JSONResponse(self.messages_body, self.status, self.headers)
        return self.response


def api_error(error: Exception) -> ApiError:  # noqa: C901, PLR0911  # a table
    """Return the error that the client sees. An unexpected one is logged, and the client learns no details."""
    match error:
        case RequestValidationError():
            return _invalid_body(error)
        case ContextLengthError():
            return ApiError(400, str(error), param=error.field, code="context_length_exceeded")
        case InvalidFieldError():
            return ApiError(400, str(error), param=error.field)
        case ModelNotFoundError():
            return ApiError(404, str(error), param="model", code="model_not_found")
        case HTTPException():
            return ApiError(error.status_code, error.detail, headers=dict(error.headers or {}))
        case NoFreeSlotError():
            headers = {"Retry-After": str(math.ceil(error.retry_after_ms / 1000))}
            return ApiError(429, str(error), "rate_limit_error", code="no_free_slot", headers=headers)
        case OverloadedError():
            return ApiError(503, str(error), "service_unavailable", code="overloaded", headers={"Retry-After": "1"})
        case NoTokenError():
            return ApiError(500, str(error), "internal_error", code="no_token")
        case RequestTimeoutError():
            return ApiError(504, str(error), "timeout_error", code="request_timeout")
        case DrainingError() | TargetUnavailableError():
            return ApiError(503, str(error), "service_unavailable")
        case ClientDisconnect():
            return ApiError(499, "the client is gone", "client_disconnected")  # nobody reads it
        case _:
            log.error("internal error", exc_info=error)
            return ApiError(500, "internal error; the log has the request id", "internal_error")


async def respond(request: Request, error: Exception) -> JSONResponse:
    """Answer a request with an error: an exception handler of Starlette's kind."""
    return api_error(error).response_at(request.url.path)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _invalid_body(error: RequestValidationError) -> ApiError:
    # Each alternative of a union reports its own problem. The deepest one is about the alternative the client meant, or
    # else one whose type is right.
    problems = [(_path(problem, error.body), problem) for problem in error.errors()]
    path, problem = max(problems, key=lambda one: (len(one[0]), not one[1]["type"].endswith("_type")))
    message = problem["msg"]
    param = ".".join(str(part) for part in path) or None
    return ApiError(400, f"{param}: {message}" if param else f"The body is not valid: {message}", param=param)


def _path(problem: dict[str, Any], body: Any) -> Sequence[str | int]:
    """Return where in the body the problem is: its location without what pydantic adds, such as a union's tags."""
    *parents, last = problem["loc"][1:] or [""]
    missing = problem["type"] == "missing"
    path: list[str | int] = []
    for part in parents if missing else [*parents, last]:
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            path.append(part)
            body = body[part]
    return [*path, last] if missing and last else path
