"""A few threads for what takes CPU time, so that the event loop never does."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from typing import TypeVar

from shared.errors import OutriderError

T = TypeVar("T")


class OverloadedError(OutriderError):
    """As much work waits for a thread as may wait."""


class WorkPool:
    """Runs work in as many threads as there are cores; so much may wait, and more is refused.

    One thread is kept from work that may be long, so that what is short never waits for it. Work should let go of the
    interpreter every few milliseconds: while it does not, the event loop stands still too.
    """

    def __init__(self, max_waiting: int) -> None:
        """Let so many wait."""
        num_threads = max(2, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(num_threads, "work")
        self._free, self._free_for_long = asyncio.Semaphore(num_threads), asyncio.Semaphore(num_threads - 1)
        self._max_waiting = max_waiting
        self.num_waiting = 0

    def busy(self, *, long: bool = False) -> bool:
        """Return whether such work has to wait."""
        return self._free.locked() or (long and self._free_for_long.locked())

    async def run(self, work: Callable[[], T], *, long: bool = False) -> T:
        """Return what the work returns. Raises OverloadedError.

        Cancelled while it waits, it never begins. Once begun it runs to its end and keeps its thread until then.
        """
        if self.busy(long=long) and self.num_waiting >= self._max_waiting:
            raise OverloadedError(f"{self.num_waiting} requests wait to be read already; try again")
        with ExitStack() as held:
            self.num_waiting += 1
            try:
                for free in (self._free_for_long, self._free) if long else (self._free,):
                    await free.acquire()
                    held.callback(free.release)
            finally:
                self.num_waiting -= 1
            working = asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)
            release = held.pop_all().close
        working.add_done_callback(lambda _: release())
        return await asyncio.shield(working)
