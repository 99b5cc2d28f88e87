"""Asks who calls: the key that requests must bring, if one is set."""

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.errors import ApiError

# Probes and scrapers have no key. Neither has a browser that opens the page, which asks for it then.
PROBES = frozenset({"/health", "/ready", "/metrics"})
OPEN = PROBES | {"/"}
OPEN_FOLDER = "/page/"

REFUSAL = ApiError(
    401,
    "Incorrect API key provided. Send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`.",
    code="invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)


class RequireKey:
    """Refuses requests without the key, before their bodies are read.

    Plain ASGI, as RequestScope is.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        """Wrap this application."""
        self._app = app
        self._digest = _digest(key)

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
        return any(hmac.compare_digest(_digest(one), self._digest) for one in sent)


def _digest(text: str) -> bytes:
    """Return bytes of one length, whose comparison tells nothing of the text's."""
    return hashlib.sha256(text.encode()).digest()
