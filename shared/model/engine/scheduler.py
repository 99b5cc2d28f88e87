"""Hands the jobs of all sessions to the worker thread."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from shared.model.engine.job import Job, Withdrawal
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.outcomes import Outcome, Outcomes
from shared.model.engine.session import Session
from shared.model.engine.watchdog import StuckError, Watchdog
from shared.model.engine.worker import Worker
from shared.model.runner import Runner


class Scheduler:
    """The event loop's side of the one thread that computes.

    A session belongs to the worker from the submission of a job until the job's last outcome or withdrawal. The worker
    goes from pass to pass without the event loop, which would add a millisecond to each draft token.
    """

    def __init__(
        self,
        runner: Runner,
        prefill_rows: int,
        meter: EngineMeter,
        thread: Executor,
        allowed_seconds: Callable[[int], float] = lambda _: math.inf,
    ) -> None:
        """Prepare; nothing runs before `run`. The thread is the one that loaded the runner; `run` shuts it down.

        A pass of so many rows that takes longer than `allowed_seconds` is taken for one that never returns.
        """
        self._watchdog = Watchdog(allowed_seconds)
        self._worker = Worker(runner, prefill_rows, meter, self._watchdog)
        self._inbox = self._worker.inbox
        self._thread = thread

    def prefill(self, session: Session) -> None:
        """Start running all tokens of the session but the last, without waiting for the result."""
        if session.cached < len(session.token_ids) - 1:
            self._inbox.put(Job(session))

    def decode(
        self,
        session: Session,
        num_tokens: int,
        draft_ids: Sequence[int] = (),
        *,
        ahead: bool = False,
        min_confidence: float = 0.0,
        max_forced: int = 0,
    ) -> Outcomes:
        """Start passes until `num_tokens` are drawn, a stop token is, or a withdrawal, and return their outcomes.

        The first pass runs what is not cached yet and verifies the draft tokens. Replaces a prefill of the same
        session. Work ahead runs only when there is nothing else to run. If the session tells log-probabilities, the
        passes also end once the product of its tokens' probabilities is less than `min_confidence`. Up to `max_forced`
        tokens that are certain are appended to those that are drawn, and run with the next ones.
        """
        outcomes = Outcomes(partial(self.withdraw, session), num_tokens)
        self._inbox.put(
            Job(session, draft_ids, num_tokens, outcomes.deliver, ahead, min_confidence, max_forced=max_forced)
        )
        return outcomes

    async def verify(self, session: Session, draft_ids: Sequence[int]) -> Outcome:
        """Run one round: return the outcome of one pass."""
        with self.decode(session, 1, draft_ids) as outcomes:
            [outcome] = await anext(outcomes)
            return outcome

    def withdraw(self, session: Session, then: Callable[[], None] | None = None) -> None:
        """End the session's job after the running pass, then call `then` in the event loop.

        Not awaited, so that no cancellation can come between a session's last pass and the release of its slot.
        """
        loop = asyncio.get_running_loop()
        self._inbox.put(Withdrawal(session, partial(loop.call_soon_threadsafe, then) if then else None))

    async def settle(self, session: Session) -> None:
        """End the session's job and wait until the worker has let go of it."""
        settled = asyncio.Event()
        self.withdraw(session, settled.set)
        await settled.wait()

    async def run(self) -> None:
        """Run forward passes until cancelled. Raises what ends the worker, and StuckError if a pass does not return."""
        working = asyncio.get_running_loop().run_in_executor(self._thread, self._worker.work)
        returns = True
        try:
            await self._watchdog.watch(working)
            working.result()
        except StuckError:
            returns = False
            raise
        finally:
            self._inbox.put(None)
            self._thread.shutdown(wait=returns)
