"""What the runners of all devices have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from shared.sampling_params import SamplingParams

MAX_ROWS = 512  # of one forward pass
NO_TOKEN = -1  # drawn where none can be: not a number anywhere, or nothing above -inf


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one session to run: `token_ids` stand at `start` and on, in `slot`.

    The logits of the last `num_logits` of them are wanted.
    """

    slot: int
    start: int
    token_ids: Sequence[int]
    num_logits: int
    draw: SamplingParams | None = None
    """How a device that can may draw the tokens that follow those rows."""


class Rows:
    """Logits, and the tokens drawn from them where the device drew them itself."""

    def __init__(self, pieces: Sequence[torch.Tensor], drawn: Sequence[int] | None = None) -> None:
        """Keep the logits where they are: pieces of [rows, V] each, one after the other."""
        self._pieces = pieces
        self.drawn = drawn
        """The token that follows each row, if the segment said how it is drawn and the device could; or NO_TOKEN."""

    @cached_property
    def logits(self) -> torch.Tensor:
        """The logits of all rows, [rows, V], in this process's memory: brought here when first asked for."""
        pieces = [piece.cpu() for piece in self._pieces]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class Runner(Protocol):
    """Runs forward passes of a model over the slots."""

    @property
    def device(self) -> str:
        """What it runs on, as it is reported."""

    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run the segments in one forward pass, and return each one's wanted rows."""

    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        """Copy the first keys and values of a slot to another one; return whether this device does."""
