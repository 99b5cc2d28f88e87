"""Continuous batching: decides which rows run in which forward pass."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter

import structlog

from shared.errors import OutriderError
from shared.model.engine.gathering import Gathering
from shared.model.engine.job import Job, Withdrawal
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.outcomes import Outcome, Outcomes
from shared.model.engine.prefixes import Prefixes
from shared.model.engine.session import Session
from shared.model.engine.verifier import verify
from shared.model.runner import MAX_ROWS, Runner, Segment

log = structlog.get_logger()

DECODE_ROWS = 32  # a job of at most so many rows is not prefill and goes first


class Scheduler:
    """Runs the jobs of all sessions on one worker thread, one forward pass at a time.

    Each pass takes every verify that is ready and, beside them, a chunk of at most `prefill_rows` of the oldest
    prefill, so that a long prompt does not stall the sessions that are decoding (Sarathi-Serve, arXiv 2403.02310).
    Where only verifies are ready, a pass may wait for others that are about to come (`Gathering`).
    A session belongs to the worker from when a job of it is submitted to its last outcome, or to its withdrawal. The
    worker goes from pass to pass without the event loop, which would cost a draft token a millisecond.
    """

    def __init__(self, runner: Runner, prefill_rows: int, meter: EngineMeter, worker: Executor) -> None:
        """Prepare; nothing runs before `run`. The worker is the one thread that loaded the runner; `run` ends it."""
        self._runner = runner
        self._prefill_rows = prefill_rows
        self._meter = meter
        self._inbox: SimpleQueue[Job | Withdrawal | None] = SimpleQueue()
        self._jobs: dict[Session, Job] = {}  # oldest first; the worker's own
        self._gathering = Gathering()  # likewise
        self._prefixes = Prefixes(runner)  # likewise
        self._worker = worker

    def prefill(self, session: Session) -> None:
        """Start to run all but the session's last token, without waiting."""
        if session.cached < len(session.token_ids) - 1:
            self._inbox.put(Job(session))

    def decode(
        self, session: Session, num_passes: int, draft_ids: Sequence[int] = (), *, ahead: bool = False
    ) -> Outcomes:
        """Start so many passes, or up to a stop token or a withdrawal, and return their outcomes.

        The first pass runs what is not cached yet and verifies the draft tokens. Takes over from a prefill of the same
        session. What is decoded ahead waits while anything else is to run.
        """
        outcomes = Outcomes(partial(self.withdraw, session))
        self._inbox.put(Job(session, draft_ids, num_passes, outcomes.deliver, ahead))
        return outcomes

    async def verify(self, session: Session, draft_ids: Sequence[int]) -> Outcome:
        """Run one round: return the outcome of one pass."""
        with self.decode(session, 1, draft_ids) as outcomes:
            return await anext(outcomes)

    def withdraw(self, session: Session, then: Callable[[], None] | None = None) -> None:
        """End the session's job after the pass that is running, and then, in the event loop, call `then`.

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
        while True:
            try:
                message = self._inbox.get(timeout=self._patience())
            except Empty:
                if batch := self._plan():
                    self._step(batch)
                continue
            if message is None:
                return
            job = self._jobs.pop(message.session, None)
            if isinstance(message, Job):
                self._jobs[message.session] = message
                self._prefixes.come(message.session)
                if not message.ahead:
                    self._gathering.come(message.session, perf_counter())
                continue
            if job and job.deliver:
                job.deliver(None)
            if job and not job.ahead:
                self._gathering.leave(message.session, perf_counter())
            if message.then:
                self._gathering.end(message.session)
                message.then()

    def _patience(self) -> float | None:
        """Return how long to wait for a message before the next pass; None is for ever."""
        if not self._jobs:
            return None
        ready = [job for job in self._jobs.values() if not job.ahead]
        decoding = ready and all(job.deliver for job in ready)  # a prefill has no reason to wait
        return self._gathering.wait(len(ready), perf_counter()) if decoding else 0.0

    def _plan(self) -> list[tuple[Job, Segment]]:
        batch: list[tuple[Job, Segment]] = []
        room, prefill_room = MAX_ROWS - self._prefill_rows, self._prefill_rows
        for job in [job for job in self._jobs.values() if not job.ahead] or list(self._jobs.values()):
            if prefill_room or len(job.rows) <= DECODE_ROWS:
                self._prefixes.take_over(job.session)
            num_rows = len(job.rows)
            if not num_rows:  # a prefill, all of which another session has run
                del self._jobs[job.session]
            elif num_rows <= min(DECODE_ROWS, room):
                batch.append((job, job.segment(num_rows)))
                room -= num_rows
            elif num_rows > DECODE_ROWS and prefill_room:
                batch.append((job, job.segment(prefill_room)))
                prefill_room = 0
        return batch

    def _step(self, batch: list[tuple[Job, Segment]]) -> None:
        started = perf_counter()
        try:
            results = self._runner.extend([segment for _, segment in batch])
        except RuntimeError as error:
            log.exception("forward pass failed")
            for job, _ in batch:
                self._end(job, error)
            return
        forwarded = perf_counter()
        self._gathering.passed(forwarded - started)
        num_rows = sum(len(segment.token_ids) for _, segment in batch)
        for (job, segment), rows in zip(batch, results, strict=True):
            job.forward_seconds += forwarded - started
            job.num_passes += 1
            if segment.num_logits:
                try:
                    verdict = verify(rows, job.draft_ids, job.session.sampler, len(job.session.token_ids))
                except OutriderError as error:  # a grammar that grew too complex ends its own session and no other
                    self._end(job, error)
                    continue
                self._apply(job, job.outcome(verdict, perf_counter() - forwarded, num_rows, len(batch)))
            else:
                job.session.cache(len(segment.token_ids))
                if not job.rows:
                    del self._jobs[job.session]
        if not batch[0][0].ahead:  # a draft that works ahead would always be busy
            self._meter.count_pass(perf_counter() - started)

    def _apply(self, job: Job, outcome: Outcome) -> None:
        if outcome.last:
            self._jobs.pop(job.session)
            if not job.ahead:
                self._gathering.leave(job.session, perf_counter())
        if not job.ahead:
            self._meter.count_wait(outcome.timing.queue_us / 1e6)
        if job.deliver:
            job.deliver(outcome)

    def _end(self, job: Job, error: Exception) -> None:
        del self._jobs[job.session]
        if job.deliver:
            job.deliver(error)
