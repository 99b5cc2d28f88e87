"""An answer, and when its parts came."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What one request got. All times are seconds from when it was sent."""

    text: str = ""
    piece_seconds: tuple[float, ...] = ()
    """When each piece of text came; a round sends one."""
    seconds: float = 0.0
    """When the answer was complete."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The gateway's `metrics.speculative_decoding`; empty from other servers."""
    error: str | None = None
    """Why there is no whole answer."""

    @property
    def tokens_per_second(self) -> float:
        """Over the whole request, prefill included."""
        return self.completion_tokens / self.seconds

    @property
    def first_token_seconds(self) -> float:
        """When the first piece of text came."""
        return self.piece_seconds[0]

    @property
    def gap_seconds(self) -> list[float]:
        """The pauses between the pieces."""
        return [later - earlier for earlier, later in pairwise(self.piece_seconds)]

    @property
    def later_tokens(self) -> float:
        """How many tokens came after the first piece.

        The tokens of a piece are not told: those of the first are taken to be as many as those of the others.
        """
        pieces = len(self.piece_seconds)
        return self.completion_tokens * (pieces - 1) / pieces

    @property
    def token_seconds(self) -> float | None:
        """The mean time for a token after the first piece; None where that was all."""
        return sum(self.gap_seconds) / self.later_tokens if self.later_tokens else None
