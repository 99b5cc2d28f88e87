"""An answer, and when its parts arrived."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Reply:
    """The answer to one request. All times are in seconds since the request was sent."""

    text: str = ""
    piece_seconds: tuple[float, ...] = ()
    """When each piece of text arrived; a round sends one."""
    seconds: float = 0.0
    """When the answer was complete."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The gateway's `metrics.speculative_decoding`; empty from other servers."""
    error: str | None = None
    """Why there is no complete answer."""

    @property
    def tokens_per_second(self) -> float:
        """Over the whole request, prefill included."""
        return self.completion_tokens / self.seconds

    @property
    def first_token_seconds(self) -> float:
        """When the first piece of text arrived."""
        return self.piece_seconds[0]

    @property
    def gap_seconds(self) -> list[float]:
        """The pauses between the pieces."""
        return [later - earlier for earlier, later in pairwise(self.piece_seconds)]

    @property
    def later_tokens(self) -> float:
        """How many tokens came after the first piece.

        The number of tokens in a piece is not reported; assume that the first has as many as the others.
        """
        pieces = len(self.piece_seconds)
        return self.completion_tokens * (pieces - 1) / pieces

    @property
    def token_seconds(self) -> float | None:
        """The mean time for a token after the first piece; None if that was the only one."""
        return sum(self.gap_seconds) / self.later_tokens if self.later_tokens else None
