"""The contract of every runner: what the engine may ask of a device."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from typing_extensions import override

from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

MAX_ROWS = 512  # per forward pass
NO_TOKEN = -1  # stands for a draw that failed: the logits hold a NaN, or nothing above -inf


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one session to run: `token_ids` go to the positions from `start` on in `slot`.

    The logits of the last `num_logits` tokens are wanted.
    """

    slot: int
    start: int
    token_ids: Sequence[int]
    num_logits: int
    draw: SamplingParams | None = None
    """How to draw the tokens that follow those rows, on a device that can draw."""

    @property
    def wants_logits(self) -> bool:
        """Whether the logits themselves are needed, where the device can draw. Ranks that draw leave out any others."""
        return self.draw is None or self.draw.logprobs


class Rows:
    """Logits, and the tokens drawn from them where the device drew them itself."""

    def __init__(self, pieces: Sequence[torch.Tensor], drawn: Sequence[int] | None = None) -> None:
        """Keep the logits where they are: consecutive pieces of [rows, V] each."""
        self._pieces = pieces
        self.drawn = drawn
        """The token drawn after each row (or NO_TOKEN), if the segment said how to draw and the device could."""

    @cached_property
    def logits(self) -> torch.Tensor:
        """The logits of all rows, [rows, V], in this process's memory: copied there on first use."""
        pieces = [piece.cpu() for piece in self._pieces]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class Runner(ABC):
    """A model on a device, and the KV cache of its slots: prefill, verify and decoding are all `extend`.

    A slot holds keys and values by position, from 0 on. The session, not the runner, knows how many of them are valid:
    to roll back is to overwrite them. Not thread-safe: the thread that loaded a runner makes all calls.
    """

    device: str
    """The name of the device, for reports."""
    kernel: str
    """The name of the kernel, for reports."""
    quant: str
    """What the weights are rounded to, for reports: none, int8 or int4."""
    inexact: str
    """Why a row's bits may depend on the rows beside it; empty if no reason is known."""
    graph_choice: pb.GraphChoice | None = None
    """Which graphs were chosen at the start, for reports; None where shapes are not fixed."""
    num_slots: int
    max_length: int
    """The longest sequence that a slot holds, in tokens."""
    every_row: bool = True
    """Whether it gives the logits of more rows of a segment than the last one; a target must."""

    @abstractmethod
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run the segments in one forward pass, and return the wanted rows of each, [num_logits, V], in their order.

        The tokens of a segment attend to what their slot holds before them. Their own keys and values overwrite what
        the slot held at their positions; nothing else that anyone reads changes.

        segments: at least one, at most one per slot, each of at least one token and all together of at most MAX_ROWS.
        They lie within `num_slots` and `max_length`, all positions before a `start` have been run or copied, and the
        token ids are in the model's vocabulary. None of this is checked here.

        Raises whatever the device raises. The slots' contents from each `start` on are then undefined.
        """

    @abstractmethod
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        """Copy the first keys and values of slot `source` to `slot`, as if the tokens had been run there.

        This overwrites the positions of `slot` before `num_tokens`; `source` must hold at least that many.

        Returns whether this device can copy; if not, nothing changes.
        """

    @abstractmethod
    def clear(self, slot: int) -> None:
        """Overwrite a slot with zeros.

        Attention multiplies by 0 what a slot holds beyond its session's length, but what is not a number stays that.
        """


class RunnerWrapper(Runner):
    """Adds something to another runner's passes; everything else but the device's name stays the same."""

    def __init__(self, runner: Runner, device: str) -> None:
        """Wrap the runner."""
        self.runner, self.device = runner, device
        self.kernel, self.quant, self.inexact = runner.kernel, runner.quant, runner.inexact
        self.num_slots, self.max_length, self.every_row = runner.num_slots, runner.max_length, runner.every_row
        self.graph_choice = runner.graph_choice

    @override
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        return self.runner.copy(source, slot, num_tokens)

    @override
    def clear(self, slot: int) -> None:
        self.runner.clear(slot)
