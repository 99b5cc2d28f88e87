"""Routes that orchestrators ask: whether the gateway lives, whether it can serve, and how it does."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.clients.errors import TargetUnavailableError


def probe_routes(reachable: Callable[[], Awaitable[bool]], exposition: Callable[[], bytes]) -> APIRouter:
    """Return the routes of a gateway whose target is `reachable` or not, with metrics in Prometheus' form."""
    routes = APIRouter()

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @routes.head("/ready", include_in_schema=False)
    @routes.get("/ready")
    async def ready() -> dict[str, str]:
        if not await reachable():
            raise TargetUnavailableError("the target service cannot be reached")
        return {"status": "ok"}

    return routes
