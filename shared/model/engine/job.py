"""What the scheduler has to run for a session."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import exp
from time import perf_counter

from shared.model.engine.outcomes import Outcome
from shared.model.engine.session import Session
from shared.model.engine.verifier import Verdict
from shared.model.runner import Segment
from shared.pb import specdec_pb2 as pb


@dataclass(eq=False)
class Job:
    """Tokens of a session to run: decoding if `deliver` takes the outcomes, prefill otherwise."""

    session: Session
    draft_ids: Sequence[int] = ()
    left: int = 0
    """How many tokens are still to be drawn, if the draft tokens of the first pass do not make it more."""
    deliver: Callable[[Outcome | Exception | None], object] | None = None
    ahead: bool = False
    """Whether it is work ahead, which nobody has asked for yet: it runs only when nothing else does."""
    min_confidence: float = 0.0
    """It ends once the product of its tokens' probabilities, where they are told, is less than this."""
    anew: bool = False
    """Whether its session was run once more from its first token, since no token could be drawn."""
    confidence: float = 1.0
    """That product so far."""
    max_forced: int = 0
    """How many tokens that are certain it may append to those that are drawn."""
    arrived: float = field(default_factory=perf_counter)
    forward_seconds: float = 0.0
    num_passes: int = 0

    @property
    def rows(self) -> list[int]:
        """The tokens still to run; a prefill leaves the last one to the first verify."""
        rows = self.session.extension(self.draft_ids)
        return rows if self.deliver else rows[:-1]

    def segment(self, max_rows: int) -> Segment:
        """Return the next of its rows to run. The k+1 rows of a verify are never split."""
        rows = self.rows
        num_logits = len(self.draft_ids) + 1 if self.deliver else 0
        if len(rows) > max_rows:
            rows, num_logits = rows[: min(max_rows, len(rows) - num_logits)], 0
        return Segment(self.session.slot, self.session.cached, rows, num_logits, self.session.sampler.for_device)

    def outcome(self, verdict: Verdict, sample_seconds: float, num_rows: int, num_sessions: int) -> Outcome:
        """Commit what a pass with this many rows and sessions decided, and return the outcome."""
        position, left = len(self.session.token_ids), max(0, self.left - len(verdict.token_ids))
        self.session.commit(verdict.token_ids)
        self.confidence *= exp(sum(scored.logprob for scored in verdict.logprobs))
        if forced_ids := self.session.force(self.max_forced) if self.max_forced else []:
            self.max_forced -= len(forced_ids)
            verdict = replace(verdict, token_ids=[*verdict.token_ids, *forced_ids])
        unsure = self.confidence < self.min_confidence
        self.left = 0 if self.session.ended or not self.session.room or unsure else left
        queued = perf_counter() - self.arrived - self.forward_seconds - sample_seconds
        timing = pb.StepTiming(
            queue_us=round(queued * 1e6),
            forward_us=round(self.forward_seconds * 1e6),
            sample_us=round(sample_seconds * 1e6),
            num_passes=self.num_passes,
            num_rows=num_rows,
            num_sessions=num_sessions,
        )
        self.draft_ids, self.arrived, self.forward_seconds, self.num_passes = (), perf_counter(), 0.0, 0
        return Outcome(position, verdict, not self.left, timing)


@dataclass(frozen=True)
class Withdrawal:
    """Ends the job of a session, and then calls something."""

    session: Session
    then: Callable[[], object] | None
