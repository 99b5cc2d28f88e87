"""What bounds the streams of a service: how many there are, and how long each may say or read nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from shared.alarm import Alarm
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
    def admitted(self) -> Iterator["Stream"]:
        """Count a stream for the length of the block. Raises NoFreeSlotError."""
        if self._num_open >= self._limit:
            raise NoFreeSlotError(f"{self._num_open} streams are open", retry_after_ms=1000)
        self._num_open += 1
        stream = Stream(self._idle_seconds)
        try:
            yield stream
        finally:
            self._num_open -= 1
            stream.close()


class Stream:
    """One stream, which is read and written to by one task each, or by the same."""

    def __init__(self, idle_seconds: float) -> None:
        """Bound each wait by so many seconds."""
        self._reading, self._writing = (_Bound(idle_seconds, f"no message {verb}") for verb in ("came", "was read"))

    async def requests(self, arriving: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield its messages. Raises IdleError if the next one does not come in time."""
        while (request := await self._reading.wait(anext(arriving, None))) is not None:
            yield request

    def writer(self, write: Callable[[T], Awaitable[None]]) -> Callable[[T], Awaitable[None]]:
        """Return a function that writes, and raises IdleError if the client does not read in time."""

        async def bounded(message: T) -> None:
            await self._writing.wait(write(message))

        return bounded

    def close(self) -> None:
        """Set no timer any more."""
        self._reading.close()
        self._writing.close()


class _Bound:
    """A bound on waits one after another: as asyncio.timeout, but with one timer for all of them."""

    def __init__(self, seconds: float, problem: str) -> None:
        self._seconds, self._problem = seconds, problem
        self._alarm = Alarm(self._ring)
        self._task: asyncio.Task[Any] | None = None  # the one that waits

    async def wait(self, doing: Awaitable[T]) -> T:
        """Return what is awaited. Raises IdleError if it takes too long."""
        self._task = task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        self._alarm.set(self._seconds)
        try:
            return await doing
        except asyncio.CancelledError:
            if self._alarm.rang and task and task.uncancel() <= cancelling:
                raise IdleError(f"idle: {self._problem} for {self._seconds:g} s") from None
            raise
        finally:
            self._alarm.stop()

    def close(self) -> None:
        self._alarm.close()

    def _ring(self) -> None:
        if self._task:
            self._task.cancel()
