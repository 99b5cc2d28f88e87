"""Continuous batching: decides which rows run in which forward pass."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

import structlog

from shared.model.model_runner import MAX_ROWS, ModelRunner
from shared.model.session import Session
from shared.model.step import Segment
from shared.model.verifier import Verdict, verify
from shared.pb import specdec_pb2 as pb

log = structlog.get_logger()

DECODE_ROWS = 32  # a job of at most so many rows is not prefill and goes first


@dataclass(frozen=True)
class Outcome:
    """What a verify committed, and where its time went."""

    verdict: Verdict
    timing: pb.StepTiming


@dataclass(eq=False)
class _Job:
    """Tokens of a session to run. A verify has somebody who waits for its outcome, a prefill has not."""

    session: Session
    draft_ids: Sequence[int] = ()
    outcome: asyncio.Future[Outcome] | None = None
    arrived: float = field(default_factory=perf_counter)
    forward_seconds: float = 0.0

    @property
    def rows(self) -> list[int]:
        """The tokens that are still to run: a prefill leaves the last one to the first verify."""
        rows = self.session.extension(self.draft_ids)
        return rows if self.outcome else rows[:-1]

    def segment(self, max_rows: int) -> Segment:
        """Return the next of its rows to run. A verify's own k+1 rows are never parted."""
        rows = self.rows
        num_logits = len(self.draft_ids) + 1 if self.outcome else 0
        if len(rows) > max_rows:
            rows, num_logits = rows[: min(max_rows, len(rows) - num_logits)], 0
        return Segment(self.session.slot, self.session.cached, rows, num_logits)


@dataclass(frozen=True)
class _Timed:
    verdicts: list[Verdict | None]
    forward_seconds: float
    sample_seconds: float


class Scheduler:
    """Runs the jobs of all sessions on one worker thread, one forward pass at a time.

    Each pass takes every verify that is ready and, beside them, a chunk of at most `prefill_rows` of the oldest
    prefill, so that a long prompt does not stall the sessions that are decoding (Sarathi-Serve, arXiv 2403.02310).
    """

    def __init__(self, runner: ModelRunner, prefill_rows: int) -> None:
        """Prepare; nothing runs before `run`."""
        self._runner = runner
        self._prefill_rows = prefill_rows
        self._jobs: dict[Session, _Job] = {}  # oldest first
        self._arrival = asyncio.Event()
        self._stepping: set[Session] = set()
        self._stepped = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "forward")

    def prefill(self, session: Session) -> None:
        """Start to run all but the session's last token, without waiting."""
        if session.cached < len(session.token_ids) - 1:
            self._submit(_Job(session))

    async def verify(self, session: Session, draft_ids: Sequence[int]) -> Outcome:
        """Run what is not cached yet and the draft tokens, and commit what the samples say.

        Takes over from a prefill of the same session. If cancelled, nothing is committed.
        """
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._submit(_Job(session, draft_ids, outcome))
        try:
            return await outcome
        finally:
            await self.withdraw(session)

    async def withdraw(self, session: Session) -> None:
        """Let no pass run for the session any more: on return the session may be changed or closed."""
        job = self._jobs.pop(session, None)
        if job and job.outcome:
            job.outcome.cancel()
        if session in self._stepping:
            await self._stepped.wait()

    async def run(self) -> None:
        """Run forward passes until cancelled."""
        try:
            while True:
                await self._arrival.wait()
                self._arrival.clear()
                while batch := self._plan():
                    await self._step(batch)
        finally:
            self._worker.shutdown()

    def _submit(self, job: _Job) -> None:
        self._jobs.pop(job.session, None)
        self._jobs[job.session] = job
        self._arrival.set()

    def _plan(self) -> list[tuple[_Job, Segment]]:
        batch: list[tuple[_Job, Segment]] = []
        room, prefill_room = MAX_ROWS - self._prefill_rows, self._prefill_rows
        for job in self._jobs.values():
            num_rows = len(job.rows)
            if num_rows <= min(DECODE_ROWS, room):
                batch.append((job, job.segment(num_rows)))
                room -= num_rows
            elif num_rows > DECODE_ROWS and prefill_room:
                batch.append((job, job.segment(prefill_room)))
                prefill_room = 0
        return batch

    async def _step(self, batch: list[tuple[_Job, Segment]]) -> None:
        self._stepping = {job.session for job, _ in batch}
        self._stepped.clear()
        try:
            timed = await asyncio.get_running_loop().run_in_executor(self._worker, self._forward, batch)
        except RuntimeError as error:
            log.exception("forward pass failed")
            for job, _ in batch:
                self._end(job, error)
        else:
            for (job, segment), verdict in zip(batch, timed.verdicts, strict=True):
                self._apply(job, segment, verdict, timed)
        self._stepping = set()
        self._stepped.set()

    def _forward(self, batch: list[tuple[_Job, Segment]]) -> _Timed:
        started = perf_counter()
        logits = self._runner.extend([segment for _, segment in batch])
        forwarded = perf_counter()
        verdicts = [
            verify(rows, job.draft_ids, job.session.params, len(job.session.token_ids)) if segment.num_logits else None
            for (job, segment), rows in zip(batch, logits, strict=True)
        ]
        return _Timed(verdicts, forwarded - started, perf_counter() - forwarded)

    def _apply(self, job: _Job, segment: Segment, verdict: Verdict | None, timed: _Timed) -> None:
        job.forward_seconds += timed.forward_seconds
        if self._jobs.get(job.session) is not job and verdict:
            return  # withdrawn during the pass: nothing is committed
        if verdict:
            job.session.commit(verdict.token_ids)
            queued = perf_counter() - job.arrived - job.forward_seconds - timed.sample_seconds
            seconds = {"queue_us": queued, "forward_us": job.forward_seconds, "sample_us": timed.sample_seconds}
            self._end(job, Outcome(verdict, pb.StepTiming(**{k: round(v * 1e6) for k, v in seconds.items()})))
        else:
            job.session.cache(len(segment.token_ids))
            if not job.rows:
                self._end(job, None)

    def _end(self, job: _Job, outcome: Outcome | Exception | None) -> None:
        if self._jobs.get(job.session) is job:
            del self._jobs[job.session]
        if job.outcome and not job.outcome.done():
            if isinstance(outcome, Exception):
                job.outcome.set_exception(outcome)
            elif outcome:
                job.outcome.set_result(outcome)
