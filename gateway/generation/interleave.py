"""Merges the deltas of several choices as they come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from gateway.generation.delta import Delta


async def interleave(streams: Sequence[AsyncGenerator[Delta]], limit: int) -> AsyncGenerator[Delta]:
    """Yield what the streams yield, as it comes, with at most `limit` of them running.

    The first error ends all streams and is raised. Closing this generator closes them.
    """
    # Unbounded, so that a client who reads slowly does not hold a slot: what waits is text, no longer than max_tokens.
    queue: asyncio.Queue[Delta | None] = asyncio.Queue()
    free = asyncio.Semaphore(limit)

    async def pump(stream: AsyncGenerator[Delta]) -> None:
        async with free, aclosing(stream):
            async for delta in stream:
                queue.put_nowait(delta)

    async def pump_all() -> None:
        try:
            async with asyncio.TaskGroup() as pumps:
                for stream in streams:
                    pumps.create_task(pump(stream))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            queue.put_nowait(None)

    pumping = asyncio.create_task(pump_all())
    try:
        while (delta := await queue.get()) is not None:
            yield delta
        await pumping
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
