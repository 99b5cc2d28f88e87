"""What bounds the streams of a service: how many there are, and how long each may say or read nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from shared.errors import IdleError, NoFreeSlotError

T = TypeVar("T")

SPARE = 256  # streams beside those that hold a slot or wait for one: they have not said yet what they want


class Streams:
    """The open streams of a service."""

    def __init__(self, num_slots: int, max_waiting: int, idle_seconds: float) -> None:
        """Admit those that can hold a slot or wait for one, and some; each may be idle for `idle_seconds`."""
        self._num_open, self._limit = 0, num_slots + max_waiting + SPARE
        self._idle_seconds = idle_seconds

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a stream for the length of the block. Raises NoFreeSlotError."""
        if self._num_open >= self._limit:
            raise NoFreeSlotError(f"{self._num_open} streams are open", retry_after_ms=1000)
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1

    async def requests(self, arriving: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield the messages of a stream. Raises IdleError if the next one does not come in time."""
        while (request := await self._soon(anext(arriving, None), "no message came")) is not None:
            yield request

    def writer(self, write: Callable[[T], Awaitable[None]]) -> Callable[[T], Awaitable[None]]:
        """Return a function that writes, and raises IdleError if the client does not read in time."""

        async def bounded(message: T) -> None:
            await self._soon(write(message), "no message was read")

        return bounded

    async def _soon(self, doing: Awaitable[T], problem: str) -> T:
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await doing
        except TimeoutError:
            raise IdleError(f"idle: {problem} for {self._idle_seconds:g} s") from None
