"""What every gRPC server and channel of Outrider has in common."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from shared.errors import STATUS, IdleError, NoFreeSlotError, OutriderError, SessionFailedError
from shared.network_delay import NetworkDelay

log = structlog.get_logger()

OPENED = "outrider-opened-bin"
"""The initial metadata in which a target says who it is, before it reads what it is asked: a serialized Opened."""

OPTIONS = [
    # A prompt of a million tokens is a message of a few megabytes; gRPC's own limit is 4.
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
    # Notice a peer that vanished without closing its connection, so that its slots become free.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # any number: an idle stream is pinged, too
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Find a service again within a second of its return.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A name may stand for several replicas: each stream, that is, each session, goes to the next available one.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # Replicas come and go: resolve the name again when one is lost, and whenever a connection reaches its maximum age.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.max_connection_age_ms", 300_000),
    # Two servers on one port would share its connections, each with its own model.
    ("grpc.so_reuseport", 0),
]

MAX_DETAILS = 1000  # bytes


@asynccontextmanager
async def errors_as_status(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """End the RPC with the gRPC status of the OutriderError that the block raises, or with INTERNAL for any other."""
    refusal: OutriderError | None = None
    peer = context.peer()  # once the RPC has ended, asking would end the process
    try:
        yield
    except* grpc.aio.InternalError:  # from gRPC, of a write
        refusal = IdleError("the client has gone")
    except* OutriderError as group:  # from a task group, or a single one
        refusal = next(_flattened(group))
    except* Exception:
        log.exception("rpc failed", peer=peer)
        refusal = SessionFailedError("internal error; the log has it")
    if refusal:
        reason = shortened(str(refusal))
        log.info("rpc refused", reason=reason, peer=peer)
        pushback = (
            (("grpc-retry-pushback-ms", str(refusal.retry_after_ms)),) if isinstance(refusal, NoFreeSlotError) else ()
        )
        if context.done():
            return
        with suppress(grpc.aio.InternalError):  # it has gone, too
            await context.abort(STATUS[type(refusal)], reason, pushback)


def shortened(text: str) -> str:
    """Return what of a text fits the details of a status: gRPC refuses 8 KB or more, and writes many bytes as three."""
    encoded = text.encode(errors="replace")
    return encoded[:MAX_DETAILS].decode(errors="ignore") + " ..." * (len(encoded) > MAX_DETAILS)


def _flattened(group: BaseExceptionGroup[OutriderError]) -> Iterator[OutriderError]:
    """Yield the individual errors of a group that may contain groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flattened(error)
        else:
            yield error


class RpcServer:
    """A gRPC server with health and reflection that drains before it stops."""

    def __init__(
        self, service_name: str, grace_seconds: float, max_message_bytes: int, network_delay_ms: float = 0
    ) -> None:
        """Prepare a server for the service with this full name, which is sent messages of at most so many bytes.

        Stopping waits `grace_seconds` for open streams.
        """
        delays = [NetworkDelay(network_delay_ms / 1000)] if network_delay_ms else []
        limits = {
            "grpc.max_receive_message_length": max_message_bytes,
            "grpc.compression_enabled_algorithms_bitset": 1,  # none: a small message could be unpacked to a large one
        }
        self.grpc = grpc.aio.server(interceptors=delays, options=[*(dict(OPTIONS) | limits).items()])
        self._service_name = service_name
        self._grace_seconds = grace_seconds
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection((service_name, health.SERVICE_NAME, reflection.SERVICE_NAME), self.grpc)

    async def serve(self, address: str, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Serve at `host:port` until SIGTERM or SIGINT, then refuse new streams and let the open ones finish.

        Does the work meanwhile, and cancels it at the end. If it fails, the process ends at once, with exit code 1: its
        clients go on elsewhere. So it does if the address cannot be bound.
        """
        working = asyncio.create_task(self._end_with(work)) if work else None
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            port = self.grpc.add_insecure_port(address)
        except RuntimeError:  # gRPC logs the reason
            sys.exit(f"setting address: {address} cannot be bound")
        await self.grpc.start()
        for name in ("", self._service_name):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", port=port)
        await stop.wait()
        log.info("draining", grace_seconds=self._grace_seconds)
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(self._grace_seconds)
        if working:
            working.cancel()
            await asyncio.wait([working])
        log.info("stopped")

    async def _end_with(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, and end the process if it fails; at once, since what failed may never return."""
        try:
            await work
        except Exception as error:
            log.exception("the worker failed: the process ends", reason=str(error))
            for name in ("", self._service_name):
                await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
            await asyncio.sleep(0.1)  # for those who watch its health
            os._exit(1)
