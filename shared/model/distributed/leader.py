"""Runs a model that is spread over ranks: rank 0 decides what runs, and all ranks run it together."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import NoReturn

import structlog
from typing_extensions import override

from shared.errors import ModelError
from shared.model.distributed.ranks import LOST, end, join, num_ranks, rank
from shared.model.runner import Rows, Runner, RunnerWrapper, Segment
from shared.sampling_params import SamplingParams

log = structlog.get_logger()

Copy = tuple[int, int, int]  # slots, from and to, and number of tokens
Clear = int  # slot
Pass = list[tuple[int, int, list[int], int, SamplingParams | None]]  # the fields of each segment
Message = Copy | Clear | Pass


class _Leader(RunnerWrapper):
    """Rank 0's runner: makes the other ranks run what it runs.

    Any failure ends the replica, since the state of the other ranks is then unknown.
    """

    def __init__(self, runner: Runner, others: Sequence[Connection]) -> None:
        """Run on this rank's runner and on those of the ranks at the other ends."""
        super().__init__(runner, f"{runner.device}, {num_ranks()} ranks")
        self._others = others

    @override
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        with self._telling([_fields(segment) for segment in segments]):
            return self.runner.extend(segments)

    @override
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        with self._telling((source, slot, num_tokens)):
            return self.runner.copy(source, slot, num_tokens)

    @override
    def clear(self, slot: int) -> None:
        with self._telling(slot):
            self.runner.clear(slot)

    @contextmanager
    def _telling(self, message: Message) -> Iterator[None]:
        try:
            for other in self._others:
                other.send(message)
            yield
        except Exception:
            log.exception("forward pass failed")
            # a killed rank's sockets close one after the other: its part of a pass can fail before this one says why
            end(LOST if wait(self._others, timeout=1) else "the ranks are out of step")


def _fields(segment: Segment) -> tuple[int, int, list[int], int, SamplingParams | None]:
    """Return what the others have to know: of how to draw, only what a device draws with."""
    draw = segment.draw and SamplingParams(
        segment.draw.temperature, seed=segment.draw.seed, min_p=segment.draw.min_p, logprobs=segment.draw.logprobs
    )
    return segment.slot, segment.start, list(segment.token_ids), segment.num_logits, draw


def lead(runner: Runner) -> Runner:
    """Return the runner of all ranks, given rank 0's own. Raises ModelError in a service that cannot spread a model."""
    if rank():
        raise ModelError("only the target's model is spread over ranks")
    return _Leader(runner, join()) if num_ranks() > 1 else runner


def follow(runner: Runner) -> NoReturn:
    """Run on this rank's runner what rank 0 runs, until rank 0 is gone, then end. Raises ModelError."""
    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun sends them to all ranks: rank 0 drains first
        signal.signal(number, signal.SIG_IGN)
    (leader,) = join()
    inbox: SimpleQueue[Message] = SimpleQueue()
    Thread(target=_receive, args=(leader, inbox), daemon=True).start()
    while True:
        match inbox.get():
            case list(segments):
                runner.extend([Segment(*segment) for segment in segments])
            case (source, slot, num_tokens):
                runner.copy(source, slot, num_tokens)
            case int(slot):
                runner.clear(slot)


def _receive(leader: Connection, inbox: SimpleQueue[Message]) -> None:
    """Fetch what rank 0 sends. When it is gone, end at once, even mid-pass; its own exit code says how it ended."""
    try:
        while True:
            inbox.put(leader.recv())
    except (EOFError, OSError):
        os._exit(0)
