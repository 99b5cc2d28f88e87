"""Continuous batching: decides which rows run in which forward pass."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter

import structlog

from shared.errors import OutriderError
from shared.model.engine.batch_wait import BatchWait
from shared.model.engine.job import Job, Withdrawal
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.outcomes import Outcome, Outcomes
from shared.model.engine.prefixes import Prefixes
from shared.model.engine.session import Session
from shared.model.engine.verifier import verify
from shared.model.runner import MAX_ROWS, Rows, Runner, Segment

log = structlog.get_logger()

DECODE_ROWS = 32  # a job with no more rows than this does not count as prefill and goes first

Plan = list[tuple[Job, Segment]]  # which jobs a pass runs, and which of their rows


class Scheduler:
    """Runs the jobs of all sessions on one worker thread, one forward pass at a time: receive, plan, run, apply.

    Each pass takes every verify that is ready and, beside them, a chunk of at most `prefill_rows` of the oldest
    prefill, so that a long prompt does not stall the sessions that are decoding (Sarathi-Serve, arXiv 2403.02310).
    If only verifies are ready, a pass may wait for others that are about to arrive (`BatchWait`).
    A session belongs to the worker from the submission of a job until the job's last outcome or withdrawal. The worker
    goes from pass to pass without the event loop, which would add a millisecond to each draft token.
    """

    def __init__(self, runner: Runner, prefill_rows: int, meter: EngineMeter, worker: Executor) -> None:
        """Prepare; nothing runs before `run`. The worker is the thread that loaded the runner; `run` shuts it down."""
        self._runner = runner
        self._prefill_rows = prefill_rows
        self._meter = meter
        self._inbox: SimpleQueue[Job | Withdrawal | None] = SimpleQueue()
        self._jobs: dict[Session, Job] = {}  # oldest first; used by the worker only
        self._batch_wait = BatchWait()  # likewise
        self._prefixes = Prefixes(runner)  # likewise
        self._worker = worker

    def prefill(self, session: Session) -> None:
        """Start running all tokens of the session but the last, without waiting for the result."""
        if session.cached < len(session.token_ids) - 1:
            self._inbox.put(Job(session))

    def decode(
        self, session: Session, num_passes: int, draft_ids: Sequence[int] = (), *, ahead: bool = False
    ) -> Outcomes:
        """Start `num_passes` passes, fewer after a stop token or a withdrawal, and return their outcomes.

        The first pass runs what is not cached yet and verifies the draft tokens. Replaces a prefill of the same
        session. Work ahead runs only when there is nothing else to run.
        """
        outcomes = Outcomes(partial(self.withdraw, session))
        self._inbox.put(Job(session, draft_ids, num_passes, outcomes.deliver, ahead))
        return outcomes

    async def verify(self, session: Session, draft_ids: Sequence[int]) -> Outcome:
        """Run one round: return the outcome of one pass."""
        with self.decode(session, 1, draft_ids) as outcomes:
            return await anext(outcomes)

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
        """Run forward passes until cancelled."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._work)
        finally:
            self._inbox.put(None)
            self._worker.shutdown()

    def _work(self) -> None:
        while self._receive():
            if not (plan := self._plan()):  # the only job was a prefill, and another session had run all of it
                continue
            try:
                results = self._run(plan)
            except RuntimeError as error:
                log.exception("forward pass failed")
                for job, _ in plan:
                    self._fail(job, error)
            else:
                self._apply(plan, results)

    def _receive(self) -> bool:
        """Take in messages until the next pass is due. Return whether to run it: no longer once `run` ends."""
        while True:
            try:
                message = self._inbox.get(timeout=self._patience())
            except Empty:
                return True
            match message:
                case Job():
                    self._start(message)
                case Withdrawal():
                    self._stop(message)
                case None:
                    return False

    def _start(self, job: Job) -> None:
        """Take on a job as the newest one, replacing the session's previous job."""
        self._jobs.pop(job.session, None)
        self._jobs[job.session] = job
        self._prefixes.come(job.session)
        if not job.ahead:
            self._batch_wait.come(job.session, perf_counter())

    def _stop(self, withdrawal: Withdrawal) -> None:
        """End the session's job, if it has one, and notify whoever waits for that."""
        job = self._jobs.pop(withdrawal.session, None)
        if job and job.deliver:
            job.deliver(None)
        if job and not job.ahead:
            self._batch_wait.leave(job.session, perf_counter())
        if withdrawal.then:
            self._batch_wait.end(withdrawal.session)
            withdrawal.then()

    def _patience(self) -> float | None:
        """Return how long to wait for a message before the next pass, in seconds; None means for ever."""
        if not self._jobs:
            return None
        ready = [job for job in self._jobs.values() if not job.ahead]
        decoding = ready and all(job.deliver for job in ready)  # a prefill has no reason to wait
        return self._batch_wait.seconds(len(ready), perf_counter()) if decoding else 0.0

    def _plan(self) -> Plan:
        """Choose the jobs of the next pass, and the rows of each."""
        plan: Plan = []
        room, prefill_room = MAX_ROWS - self._prefill_rows, self._prefill_rows
        for job in [job for job in self._jobs.values() if not job.ahead] or list(self._jobs.values()):
            if prefill_room or len(job.rows) <= DECODE_ROWS:
                self._prefixes.take_over(job.session)
            num_rows = len(job.rows)
            if not num_rows:  # a prefill, all of which another session has run
                del self._jobs[job.session]
            elif num_rows <= min(DECODE_ROWS, room):
                plan.append((job, job.segment(num_rows)))
                room -= num_rows
            elif num_rows > DECODE_ROWS and prefill_room:
                plan.append((job, job.segment(prefill_room)))
                prefill_room = 0
        return plan

    def _run(self, plan: Plan) -> list[Rows]:
        """Run the forward pass, and return the wanted rows of each job. Raises RuntimeError."""
        started = perf_counter()
        results = self._runner.extend([segment for _, segment in plan])
        seconds = perf_counter() - started
        for job, _ in plan:
            job.forward_seconds += seconds
            job.num_passes += 1
        self._batch_wait.count_pass(seconds)
        self._count_busy(plan, seconds)
        return results

    def _apply(self, plan: Plan, results: Sequence[Rows]) -> None:
        """Commit what the verifies of a pass decide, and mark what its prefill ran as cached."""
        started = perf_counter()
        num_rows = sum(len(segment.token_ids) for _, segment in plan)
        for (job, segment), rows in zip(plan, results, strict=True):
            if not segment.num_logits:
                job.session.cache(len(segment.token_ids))
                if not job.rows:
                    del self._jobs[job.session]
                continue
            try:
                verdict = verify(rows, job.draft_ids, job.session.sampler, len(job.session.token_ids))
            except OutriderError as error:  # a grammar that grew too complex ends only its own session
                self._fail(job, error)
            else:
                self._deliver(job, job.outcome(verdict, perf_counter() - started, num_rows, len(plan)))
        self._count_busy(plan, perf_counter() - started)

    def _deliver(self, job: Job, outcome: Outcome) -> None:
        if outcome.last:
            self._jobs.pop(job.session)
            if not job.ahead:
                self._batch_wait.leave(job.session, perf_counter())
        if not job.ahead:
            self._meter.count_wait(outcome.timing.queue_us / 1e6)
        if job.deliver:
            job.deliver(outcome)

    def _fail(self, job: Job, error: Exception) -> None:
        del self._jobs[job.session]
        if job.deliver:
            job.deliver(error)

    def _count_busy(self, plan: Plan, seconds: float) -> None:
        if not plan[0][0].ahead:  # otherwise a draft that works ahead would always look busy
            self._meter.count_busy(seconds)
