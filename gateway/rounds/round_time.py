"""Where the time of a round goes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from shared.pb import specdec_pb2 as pb

PARTS = ("draft", "wire", "queue", "verify", "sample", "emit")


@dataclass(frozen=True)
class RoundTime:
    """The parts of a round's time, in seconds."""

    draft: float
    """In the draft's forward passes, the rest of one of work ahead that had to end first included."""
    verify: float
    """In the target's forward pass, and in those of a prefill that it waited for."""
    queue: float
    """Waiting for a pass, at either service."""
    sample: float
    """Sampling, at either service."""
    wire: float
    """All else from the request for draft tokens to the target's answer, waiting for a late draft included."""
    emit: float = 0.0
    """Turning the tokens into text."""

    @classmethod
    def of(
        cls,
        proposing_seconds: float,
        proposing: Sequence[pb.StepTiming],
        verifying_seconds: float,
        verifying: Sequence[pb.StepTiming],
    ) -> Self:
        """Split the time of a proposal and a verify by the timings that the services report."""
        draft, draft_queue, draft_sample = _spent(proposing_seconds, proposing)
        verify, verify_queue, verify_sample = _spent(verifying_seconds, verifying)
        queue, sample = draft_queue + verify_queue, draft_sample + verify_sample
        wire = proposing_seconds + verifying_seconds - draft - verify - queue - sample
        return cls(draft, verify, queue, sample, wire)

    @property
    def seconds(self) -> float:
        """The whole round."""
        return self.draft + self.verify + self.overhead

    @property
    def overhead(self) -> float:
        """The round without its forward passes."""
        return self.queue + self.sample + self.wire + self.emit

    def emitted(self, seconds: float) -> Self:
        """Add the time it took to turn the tokens into text."""
        return replace(self, emit=seconds)


def _spent(waited_seconds: float, timings: Sequence[pb.StepTiming]) -> tuple[float, float, float]:
    """Return the seconds in forward passes, queue and sampling, scaled down to fit the time that was waited.

    A service that works ahead spends more time than anybody waits for.
    """
    forward, queue, sample = (
        sum(getattr(timing, name) for timing in timings) / 1e6 for name in ("forward_us", "queue_us", "sample_us")
    )
    cut = waited_seconds / max(forward + queue + sample, waited_seconds, 1e-9)
    return forward * cut, queue * cut, sample * cut
