"""The contract of every runner: what the engine may ask of a device."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from typing_extensions import override

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


class Runner(ABC):
    """A model on a device, and the KV cache of its slots: prefill, verify and decoding are all `extend`.

    A slot holds keys and values by position, from 0 on. How many of them count is the session's business, not the
    runner's: rolling back is to run over them. Not thread-safe: whichever thread loaded a runner makes all calls.
    """

    device: str
    """What it runs on, as it is reported."""
    kernel: str
    """What computes the products, likewise."""
    quant: str
    """What the weights are rounded to, likewise: none, int8 or int4."""
    inexact: str
    """Why a row's bits may depend on the rows beside it; empty where they are not known to."""
    num_slots: int
    max_length: int
    """The longest sequence that a slot holds, in tokens."""

    @abstractmethod
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run the segments in one forward pass, and return the wanted rows of each, [num_logits, V], in their order.

        The tokens of a segment attend to what their slot holds before them. Their own keys and values take the places
        of what the slot held at their positions; nothing else that anybody reads is changed.

        segments: one or more, at most one a slot, of one token or more each and MAX_ROWS together. They lie within
        `num_slots` and `max_length`, all positions before a `start` were run or copied, and token ids are the model's.
        None of this is checked here.

        Raises RuntimeError if the device fails. What the slots hold from each `start` on is then undefined.
        """

    @abstractmethod
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        """Copy the first keys and values of slot `source` to another one: what running the tokens there would give.

        The positions of that slot before `num_tokens` are overwritten. `source` holds that many.

        Returns whether this device copies; where it does not, nothing is changed.
        """


class RunnerWrapper(Runner):
    """Adds something to the passes of another runner, and is like it in all else but its device's name."""

    def __init__(self, runner: Runner, device: str) -> None:
        """Wrap the runner."""
        self.runner, self.device = runner, device
        self.kernel, self.quant, self.inexact = runner.kernel, runner.quant, runner.inexact
        self.num_slots, self.max_length = runner.num_slots, runner.max_length

    @override
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        return self.runner.copy(source, slot, num_tokens)
