"""The results of the passes that a session asked for."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from shared.model.engine.verifier import Verdict
from shared.pb import specdec_pb2 as pb

HOLD_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """What one pass committed for a session, and where its time went."""

    position: int
    """The position of the first of the tokens."""
    verdict: Verdict
    last: bool
    """Whether this is the job's last outcome."""
    timing: pb.StepTiming


class Outcomes:
    """The outcomes of a job, several at a time, up to the last one or a withdrawal.

    Only the last one wakes the event loop. If it did so for each, it would take Python's lock from the worker, which is
    about to start the next pass. Of a job that is slow, the event loop comes for what is there every HOLD_SECONDS.

    Leaving the block earlier withdraws the job and loses what the running pass commits.
    """

    def __init__(self, withdraw: Callable[[], None], num_expected: int) -> None:
        """Wait for at most so many outcomes, in the running event loop."""
        self._withdraw = withdraw
        self._loop = asyncio.get_running_loop()
        self._hold_seconds = HOLD_SECONDS if num_expected > 1 else None
        self._arrived: deque[Outcome] = deque()
        self._ended: Exception | bool = False  # or the error that it ended with
        self._wakes = asyncio.Event()
        self._over = False

    def deliver(self, outcome: Outcome | Exception | None) -> None:
        """Hand over an outcome, an error, or None for a withdrawal; from any one thread."""
        if isinstance(outcome, Outcome):
            self._arrived.append(outcome)
            if not outcome.last:
                return
        self._ended = outcome if isinstance(outcome, Exception) else True
        self._loop.call_soon_threadsafe(self._wakes.set)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Withdraw what is left."""
        if not self._over:
            self._withdraw()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Sequence[Outcome]:
        """Return the next ones, at least one. Raises the error that was delivered."""
        while True:
            ended = self._ended  # looked at first: none arrives after it
            if outcomes := [self._arrived.popleft() for _ in range(len(self._arrived))]:
                self._over = outcomes[-1].last
                return outcomes
            if isinstance(ended, Exception):
                raise ended
            if ended:
                raise StopAsyncIteration
            await self._woken()

    async def _woken(self) -> None:
        timer = self._loop.call_later(self._hold_seconds, self._wakes.set) if self._hold_seconds else None
        await self._wakes.wait()
        self._wakes.clear()
        if timer:
            timer.cancel()
