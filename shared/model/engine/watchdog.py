"""Notices a pass that never returns."""

import asyncio
from collections.abc import Callable

from shared.errors import OutriderError

TICK_SECONDS = 0.5


class StuckError(OutriderError):
    """The worker does not come back. It cannot be stopped either: its process has to end."""


class Watchdog:
    """Watches from the event loop how long the worker is at one turn: a pass, with what it copies and draws."""

    def __init__(self, allowed_seconds: Callable[[int], float]) -> None:
        """Begin idle; the function returns how long a turn with so many rows may take."""
        self._allowed_seconds = allowed_seconds
        self._turns = 0
        self._running: tuple[int, int] | None = None  # rows and sessions; None while the worker waits

    def run(self, num_rows: int, num_sessions: int) -> None:
        """Note that the worker begins something; in its thread, as all but `watch`."""
        self._turns += 1
        self._running = num_rows, num_sessions

    def rest(self) -> None:
        """Note that the worker has nothing to do."""
        self._running = None

    async def watch(self, working: asyncio.Future[None]) -> None:
        """Return when the worker ends. Raises StuckError.

        Ticks are counted, not seconds, so that a process that was stopped for a while does not count as stuck.
        """
        turns, ticks = 0, 0
        while not working.done():
            await asyncio.wait([working], timeout=TICK_SECONDS)
            running, turns, before = self._running, self._turns, turns
            ticks = ticks + 1 if running and turns == before else 0
            if running and ticks * TICK_SECONDS > self._allowed_seconds(running[0]):
                rows, sessions = running
                seconds = round(ticks * TICK_SECONDS, 1)
                raise StuckError(f"a pass of {rows} rows of {sessions} sessions has not returned for {seconds} s")
