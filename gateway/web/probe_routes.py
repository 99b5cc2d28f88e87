"""Routes that orchestrators ask: whether the gateway lives, and whether it can serve."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from gateway.clients.errors import TargetUnavailableError


def probe_routes(reachable: Callable[[], Awaitable[bool]]) -> APIRouter:
    """Return the routes of a gateway whose target is `reachable` or not."""
    routes = APIRouter()

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
