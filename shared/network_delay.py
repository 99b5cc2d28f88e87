"""Simulates a slower network."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

T = TypeVar("T")


class NetworkDelay(grpc.aio.ServerInterceptor):
    """Delays every message of a stream by the same time in both directions, without queueing one behind another."""

    def __init__(self, seconds: float) -> None:
        """Delay each way by this many seconds."""
        self._seconds = seconds

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], handler_call_details: Any) -> Any:
        """Insert the delay between the streams and their handler."""
        handler = await continuation(handler_call_details)
        if not handler or not handler.stream_stream:
            return handler

        async def behave(requests: AsyncIterator[Any], context: Any) -> None:
            outbox: asyncio.Queue[Any] = asyncio.Queue()
            sending = asyncio.create_task(self._send(outbox, context))
            try:
                async with aclosing(_late(requests, self._seconds)) as arriving:
                    await handler.stream_stream(arriving, _LateContext(context, outbox))
                outbox.put_nowait(None)
                await sending
            finally:
                sending.cancel()

        return grpc.stream_stream_rpc_method_handler(behave, handler.request_deserializer, handler.response_serializer)

    async def _send(self, outbox: asyncio.Queue[Any], context: Any) -> None:
        async with aclosing(_late(_items(outbox), self._seconds)) as leaving:
            async for message in leaving:
                await context.write(message)


class _LateContext:
    """The context of an RPC whose messages go into an outbox instead."""

    def __init__(self, context: Any, outbox: asyncio.Queue[Any]) -> None:
        self._context, self._outbox = context, outbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        self._outbox.put_nowait(message)


async def _items(queue: asyncio.Queue[T | None]) -> AsyncGenerator[T]:
    while (item := await queue.get()) is not None:
        yield item


async def _late(items: AsyncIterator[T], seconds: float) -> AsyncGenerator[T]:
    """Yield each item `seconds` after it arrived."""
    loop = asyncio.get_running_loop()
    due: asyncio.Queue[tuple[float, T] | None] = asyncio.Queue()

    async def take() -> None:
        try:
            async for item in items:
                due.put_nowait((loop.time() + seconds, item))
        finally:
            due.put_nowait(None)

    taking = asyncio.create_task(take())
    try:
        async for when, item in _items(due):
            await asyncio.sleep(when - loop.time())
            yield item
        await taking
    finally:
        taking.cancel()
