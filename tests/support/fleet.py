"""Sessions, a draft and a target in simulated time: thousands of rounds without waiting for them."""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.clients.draft.proposal import Proposal
from gateway.speculation.adaptive_k import AdaptiveK
from gateway.speculation.decision import Reason
from gateway.speculation.speculation import Speculation
from shared.model.engine.batch_wait import BatchWait
from shared.pb import specdec_pb2 as pb

Cost = Callable[[int], float]  # seconds of a pass, given its rows


@dataclass
class Clock:
    """Simulated time: makes each call when it is due."""

    now: float = 0.0
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Make a call later."""
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), call))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = end


@dataclass
class Service:
    """Runs one pass at a time over all jobs that are ready, as the scheduler does."""

    clock: Clock
    cost: Cost
    _ready: dict[int, tuple[int, float, Callable[[pb.StepTiming], bool]]] = field(default_factory=dict)
    _batch_wait: BatchWait = field(default_factory=BatchWait)
    _busy: bool = False
    passes: list[int] = field(default_factory=list)

    def submit(self, session: int, num_rows: int, done: Callable[[pb.StepTiming], bool]) -> None:
        """Run this many rows in the next pass; `done` says whether the session has another pass to run."""
        self._batch_wait.come(session, self.clock.now)
        self._ready[session] = (num_rows, self.clock.now, done)
        self._consider()

    def _consider(self) -> None:
        if self._busy or not self._ready:
            return
        wait = self._batch_wait.seconds(len(self._ready), self.clock.now)
        if wait:
            self.clock.after(wait, self._consider)
        else:
            self._start()

    def _start(self) -> None:
        self._busy = True
        jobs, self._ready = self._ready, {}
        num_rows, started = sum(rows for rows, _, _ in jobs.values()), self.clock.now
        seconds = self.cost(num_rows)
        self.passes.append(len(jobs))

        def finish() -> None:
            self._busy = False
            self._batch_wait.count_pass(seconds)
            for session, (rows, arrived, done) in jobs.items():
                timing = pb.StepTiming(
                    queue_us=round((started - arrived) * 1e6),
                    forward_us=round(seconds * 1e6),
                    num_passes=1,
                    num_rows=num_rows,
                    num_sessions=len(jobs),
                )
                if done(timing):
                    self._ready[session] = (rows, self.clock.now, done)
                else:
                    self._batch_wait.leave(session, self.clock.now)
            self._consider()

        self.clock.after(seconds, finish)


@dataclass
class Session:
    """Decodes without end."""

    fleet: "Fleet"
    adaptive_k: AdaptiveK
    acceptance: Sequence[float]
    rng: random.Random
    committed: int = 0
    ks: list[int] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)

    def begin(self) -> None:
        """Begin a round."""
        decision = self.adaptive_k.next(1000, 1)
        k = decision.k
        self.ks.append(k)
        self.reasons.append(decision.reason)
        started = self.fleet.clock.now
        timings: list[pb.StepTiming] = []

        def drafted(timing: pb.StepTiming) -> bool:
            timings.append(timing)
            if len(timings) == k:
                self.fleet.clock.after(self.fleet.wire_seconds, propose)
            return len(timings) < k

        def propose() -> None:
            proposal = Proposal(0, pb.PROPOSER_DRAFT_MODEL, token_ids=[1] * k, timings=timings, asked=k > 0)
            self.verify(proposal, self.fleet.clock.now - started)

        if k:
            self.fleet.clock.after(self.fleet.wire_seconds, lambda: self.fleet.draft.submit(id(self), 1, drafted))
        else:
            propose()

    def verify(self, proposal: Proposal, proposing_seconds: float) -> None:
        """Go on with the verify."""
        started, k = self.fleet.clock.now, len(proposal.token_ids)

        def verified(timing: pb.StepTiming) -> bool:
            self.fleet.clock.after(self.fleet.wire_seconds, lambda: commit(timing))
            return False

        def commit(timing: pb.StepTiming) -> None:
            accepted = 0
            while accepted < k and self.rng.random() < self.acceptance[min(accepted, len(self.acceptance) - 1)]:
                accepted += 1
            self.committed += accepted + 1
            response = pb.VerifyResponse(num_accepted=accepted, timing=timing)
            self.adaptive_k.learn(proposal, proposing_seconds, response, self.fleet.clock.now - started)
            self.begin()

        self.fleet.clock.after(self.fleet.wire_seconds, lambda: self.fleet.target.submit(id(self), k + 1, verified))


class Fleet:
    """Sessions that share one draft and one target."""

    def __init__(
        self,
        num_sessions: int,
        target: Cost,
        draft: Cost,
        acceptance: Sequence[float],
        *,
        k: int | None = None,
        max_k: int = 12,
        wire_seconds: float = 0.0005,
        tells_costs: bool = True,
    ) -> None:
        """Begin all sessions, adaptive or with this k; the target reports its costs if `tells_costs`."""
        self.clock = Clock()
        self.target = Service(self.clock, target)
        self.draft = Service(self.clock, draft)
        self.wire_seconds = wire_seconds
        self.speculation = Speculation(max_k, num_sessions, _pass_costs(target) if tells_costs else ())
        self.sessions = [
            Session(self, AdaptiveK(self.speculation, k, 0), acceptance, random.Random(number))
            for number in range(num_sessions)
        ]
        self.speculation.costs.open = num_sessions
        for number, session in enumerate(self.sessions):
            self.clock.after(number * 1e-4, session.begin)

    def tokens_per_second(self, seconds: float) -> float:
        """Let time pass and return the speed of all sessions together."""
        before = sum(session.committed for session in self.sessions)
        self.clock.run(seconds)
        return (sum(session.committed for session in self.sessions) - before) / seconds


def _pass_costs(cost: Cost) -> list[pb.PassCost]:
    return [pb.PassCost(num_rows=rows, forward_us=round(cost(rows) * 1e6)) for rows in (1, 2, 4, 8, 16, 32)]
