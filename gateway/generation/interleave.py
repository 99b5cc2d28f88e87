"""Decodes several choices at once and merges their deltas as they come."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from gateway.generation.choice import Choice
from gateway.generation.delta import Delta
from shared.errors import NoFreeSlotError

PAUSE_SECONDS = 1.0  # before a choice that was refused a slot asks again


async def interleave(
    choices: Sequence[Choice], decode: Callable[[Choice], AsyncGenerator[Delta]], limit: int
) -> AsyncGenerator[Delta]:
    """Yield what the choices' decoding yields, as it comes, with at most `limit` of them at once.

    The first error ends all choices and is raised; NoFreeSlotError only if there is no slot to share. Closing this
    generator ends them.
    """
    # Unbounded, so that a client who reads slowly does not hold a slot: what waits is text, no longer than max_tokens.
    queue: asyncio.Queue[Delta | None] = asyncio.Queue()
    siblings, waiting = _Siblings(decode, queue.put_nowait), iter(choices)

    async def work() -> None:
        for choice in waiting:
            await siblings.run(choice)

    async def work_all() -> None:
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(limit, len(choices))):
                    workers.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            queue.put_nowait(None)

    working = asyncio.create_task(work_all())
    try:
        while (delta := await queue.get()) is not None:
            yield delta
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


class _Siblings:
    """The choices that run. They share the slots that they get: one that is refused asks again.

    If all that ask are refused and none has begun, there is nothing to share.
    """

    def __init__(self, decode: Callable[[Choice], AsyncGenerator[Delta]], put: Callable[[Delta], None]) -> None:
        self._decode, self._put = decode, put
        self._running, self._refused, self._begun = set[int](), set[int](), set[int]()  # by index

    async def run(self, choice: Choice) -> None:
        """Decode a choice to its end."""
        self._running.add(choice.index)
        while choice.index in self._running:
            try:
                await self._try(choice)
                self._running.remove(choice.index)
            except NoFreeSlotError:
                self._refused.add(choice.index)
                if choice.index in self._begun or (not self._begun and self._running <= self._refused):
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def _try(self, choice: Choice) -> None:
        async with aclosing(self._decode(choice)) as stream:
            async for delta in stream:
                self._begun.add(choice.index)
                self._put(delta)
