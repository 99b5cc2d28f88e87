"""Continuous batching: decides which rows run in which forward pass, and runs them."""

from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from time import perf_counter

import structlog

from shared.errors import NoTokenError, OutriderError
from shared.model.engine.batch_wait import BatchWait
from shared.model.engine.failures import failure_of
from shared.model.engine.job import Job, Withdrawal
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.outcomes import Outcome
from shared.model.engine.prefixes import Prefixes
from shared.model.engine.session import Session
from shared.model.engine.verifier import verify
from shared.model.engine.watchdog import Watchdog
from shared.model.runner import MAX_ROWS, Rows, Runner, Segment

log = structlog.get_logger()

DECODE_ROWS = 32  # a job with no more rows than this does not count as prefill and goes first

Plan = list[tuple[Job, Segment]]  # which jobs a pass runs, and which of their rows


class Worker:
    """Runs the jobs of all sessions, one forward pass at a time: receive, plan, run, apply.

    Each pass takes every verify that is ready and, beside them, a chunk of at most `prefill_rows` of the oldest
    prefill, so that a long prompt does not stall the sessions that are decoding (Sarathi-Serve, arXiv 2403.02310).
    If only verifies are ready, a pass may wait for others that are about to arrive (`BatchWait`).

    Whatever fails ends the session that it failed for, and no other: see `_run_apart`.
    """

    def __init__(self, runner: Runner, prefill_rows: int, meter: EngineMeter, watchdog: Watchdog) -> None:
        """Prepare; nothing runs before `work`. The watchdog is told what runs."""
        self.inbox: SimpleQueue[Job | Withdrawal | None] = SimpleQueue()
        """What other threads have for it; None ends it."""
        self._runner = runner
        self._prefill_rows = prefill_rows
        self._meter = meter
        self._watchdog = watchdog
        self._jobs: dict[Session, Job] = {}  # oldest first
        self._batch_wait = BatchWait()
        self._prefixes = Prefixes(runner)

    def work(self) -> None:
        """Run forward passes until None arrives. Raises what the device raises when it runs nothing any more."""
        while self._receive():
            self._watchdog.run(0, len(self._jobs))
            plan = self._plan()  # empty if the only job was a prefill, and another session had run all of it
            if plan and self._pass(plan):
                self._run_apart([job for job, _ in plan])
            self._watchdog.rest()

    def _receive(self) -> bool:
        """Take in messages until the next pass is due. Return whether to run it: no longer once None arrived."""
        while True:
            try:
                message = self.inbox.get(timeout=self._patience())
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
            try:
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
            except Exception as error:
                log.exception("planning a pass failed", position=len(job.session.token_ids))
                self._fail(job, failure_of(error))
        return plan

    def _pass(self, plan: Plan) -> OutriderError | None:
        """Run a forward pass and commit what it decides. If the pass fails, nothing is, and its error is returned."""
        try:
            results = self._run(plan)
        except Exception as error:
            num_rows = sum(len(segment.token_ids) for _, segment in plan)
            log.exception("forward pass failed", rows=num_rows, sessions=len(plan))
            return failure_of(error)
        self._apply(plan, results)
        return None

    def _run_apart(self, jobs: Iterable[Job]) -> None:
        """Run the jobs of a failed pass again, each in a pass of its own without draft tokens; end those that fail.

        So neither a neighbour nor a draft token can be what a session fails of. When its own pass fails, one of as many
        rows that no session asked for shows whether the device runs anything at all. Raises what that one raises.
        """
        ended: list[tuple[Job, OutriderError]] = []
        for job in jobs:
            job.draft_ids = ()
            segment = job.segment(self._prefill_rows)
            if error := self._pass([(job, segment)]):
                self._watchdog.run(len(segment.token_ids), 0)
                self._runner.clear(job.session.slot)
                self._runner.extend([Segment(job.session.slot, 0, [0] * len(segment.token_ids), 1)])
                ended.append((job, error))
        for job, error in ended:  # only now: a device that runs nothing ends the process, and they go on elsewhere
            self._fail(job, error)

    def _run(self, plan: Plan) -> list[Rows]:
        """Run the forward pass, and return the wanted rows of each job. Raises what the device raises."""
        self._watchdog.run(sum(len(segment.token_ids) for _, segment in plan), len(plan))
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
                outcome = job.outcome(verdict, perf_counter() - started, num_rows, len(plan))
            except NoTokenError as error:
                self._run_anew(job, error)
            except Exception as error:
                if not isinstance(error, OutriderError):
                    log.exception("drawing tokens failed", position=len(job.session.token_ids))
                self._fail(job, failure_of(error))
            else:
                self._deliver(job, outcome)
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

    def _run_anew(self, job: Job, error: NoTokenError) -> None:
        """Run a session once more from its first token, without draft tokens; end it if that was tried.

        What is not a number may stem from a draft token, or from what another session left in the slot.
        """
        if job.anew:
            self._fail(job, error)
        else:
            job.anew, job.draft_ids = True, ()
            self._forget(job.session)

    def _forget(self, session: Session) -> None:
        """Leave nothing in the session's slot: should it go on, it runs all its tokens."""
        session.reuse(0)
        self._runner.clear(session.slot)

    def _fail(self, job: Job, error: OutriderError) -> None:
        """End a job, and tell whoever waits for its outcome; after a prefill that failed, its tokens run with that."""
        del self._jobs[job.session]
        self._forget(job.session)
        if job.deliver:
            job.deliver(error)

    def _count_busy(self, plan: Plan, seconds: float) -> None:
        if not plan[0][0].ahead:  # otherwise a draft that works ahead would always look busy
            self._meter.count_busy(seconds)
