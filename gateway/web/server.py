"""The HTTP server."""

import resource
import socket

import structlog
import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from gateway.settings import GatewaySettings
from gateway.web.connection import SPARE, bounded

log = structlog.get_logger()

OTHER_FILES = 64  # logs, the tokenizer's files, gRPC's connections
QUEUED = 2048  # connections that the system keeps until they are accepted
ACCEPTED = 16  # of them in one turn of the event loop: one that is over the limit has its file for four turns


class Server(uvicorn.Server):
    """Accepts few connections at a time, however many are queued.

    asyncio accepts as many in a turn as may be queued, and sees only later which are too many: a burst while the loop
    was busy would take all files.
    """

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
                    same.listen(QUEUED)


def http_server(app: FastAPI, settings: GatewaySettings) -> uvicorn.Server:
    """Return a server of this application, and raise the limit of open files as its connections need it."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded(settings, _room(settings.max_connections)),
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=settings.grace_seconds,
        backlog=ACCEPTED,
    )
    return Server(config)


def _room(max_connections: int) -> int:
    """Return how many connections there is room for, which is fewer where the system allows too few open files."""
    more = SPARE + OTHER_FILES + 4 * ACCEPTED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < max_connections + more:
        soft = max_connections + more if hard == resource.RLIM_INFINITY else min(max_connections + more, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < max_connections + more:
            log.warning("fewer connections than max_connections: the limit of open files is low", limit=soft)
            return max(soft - more, 1)
    return max_connections
