"""Asks who calls: the keys of which requests must bring one, if any is set."""

import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.errors import ApiError
from shared.namespace import namespace_of

# Probes and scrapers have no key. Neither has a browser that opens the page, which asks for it then.
PROBES = frozenset({"/health", "/ready", "/metrics"})
OPEN = PROBES | {"/"}
OPEN_FOLDER = "/page/"
KEY = "outrider_key"  # in a request's state: a digest of the key that it brought

REFUSAL = ApiError(
    401,
    "Incorrect API key provided. Send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`.",
    code="invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)


class RequireKey:
    """Refuses requests without a key, before their bodies are read, and notes whose key a request has.

    Plain ASGI, as RequestScope is.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        """Wrap this application."""
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        may = scope["type"] != "http" or self._may(scope)
        app: ASGIApp = self._app if may else REFUSAL.response_at(scope["path"])
        await app(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path in OPEN or path.startswith(OPEN_FOLDER) or scope["method"] == "OPTIONS":  # a preflight has no key
            return True
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = [headers.get("x-api-key", ""), token.strip() if scheme.lower() == "bearer" else ""]
        found = [one for one in map(_digest, sent) for known in self._digests if hmac.compare_digest(one, known)]
        scope.setdefault("state", {})[KEY] = found[0].hex() if found else ""
        return bool(found)


def namespace(request: Request, cache_salt: str | None) -> str:
    """Return whose request it is: the same for requests with the same key and salt."""
    return namespace_of(request.scope.get("state", {}).get(KEY, ""), cache_salt or "")


def _digest(text: str) -> bytes:
    """Return bytes of one length, whose comparison tells nothing of the text's."""
    return hashlib.sha256(text.encode()).digest()
