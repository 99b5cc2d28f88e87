"""A bound on each of many waits, for the price of one timer."""

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """Calls something when a wait takes too long.

    A timer a wait, as asyncio.timeout has it, costs a round more than all that is checked of its answer. Here one timer
    looks from time to time whether the present wait is over, and is set again for its end if not.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        """Call `ring`, at most once a wait."""
        self.rang = False
        """Whether the last wait took too long."""
        self._ring = ring
        self._due = inf  # in the event loop's time
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Begin a wait of at most this long."""
        self.rang = False
        loop = asyncio.get_running_loop()
        self._due = loop.time() + seconds
        if self._timer and self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = None
        if not self._timer:
            self._timer = loop.call_at(self._due, self._look)

    def stop(self) -> None:
        """End the wait."""
        self._due = inf

    def close(self) -> None:
        """Never ring."""
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if loop.time() >= self._due:
            self.rang = True
            self._ring()
        elif self._due < inf:
            self._timer = loop.call_at(self._due, self._look)
