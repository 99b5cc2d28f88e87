"""The results of the passes that a session asked for."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from shared.model.engine.verifier import Verdict
from shared.pb import specdec_pb2 as pb


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
    """The outcomes of a job, as they arrive, up to the last one or a withdrawal.

    Leaving the block earlier withdraws the job and loses what the running pass commits.
    """

    def __init__(self, withdraw: Callable[[], None]) -> None:
        """Wait for outcomes in the running event loop."""
        self._withdraw = withdraw
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[Outcome | Exception | None] = asyncio.Queue()
        self._over = False

    def deliver(self, outcome: Outcome | Exception | None) -> None:
        """Hand over an outcome, an error, or None for a withdrawal; from any thread."""
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, outcome)

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

    async def __anext__(self) -> Outcome:
        """Return the next one. Raises the error that was delivered."""
        if self._over or not (outcome := await self._arrived.get()):
            raise StopAsyncIteration
        if isinstance(outcome, Exception):
            raise outcome
        self._over = outcome.last
        return outcome
