"""A few threads for what takes CPU time, so that the event loop never does."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from shared.errors import OutriderError

P = ParamSpec("P")
T = TypeVar("T")


class OverloadedError(OutriderError):
    """As much work waits for a thread as may wait."""


class WorkPool:
    """Runs work in as many threads as there are cores; so much may wait, and more is refused.

    Work should let go of the interpreter every few milliseconds: while it does not, the event loop stands still too.
    """

    def __init__(self, max_waiting: int) -> None:
        """Let so many wait."""
        num_threads = max(2, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(num_threads, "work")
        self._free = asyncio.Semaphore(num_threads)
        self._max_waiting = max_waiting
        self.num_waiting = 0

    @property
    def busy(self) -> bool:
        """Whether work has to wait."""
        return self._free.locked()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the work returns. Raises OverloadedError.

        Cancelled while it waits, it never begins. Once begun it runs to its end and keeps its thread until then.
        """
        if self.busy and self.num_waiting >= self._max_waiting:
            raise OverloadedError(f"{self.num_waiting} requests wait to be read already; try again")
        self.num_waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.num_waiting -= 1
        context = copy_context()
        working = asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work, *args, **kwargs))
        working.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(working)
