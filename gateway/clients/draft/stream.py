"""One stream to the draft service, from its opening to its end."""

import asyncio
from contextlib import suppress
from enum import Enum, auto
from time import perf_counter

import grpc
import structlog

from gateway.clients.draft.client import DraftClient
from gateway.clients.draft.proposal import Proposal
from shared.alarm import Alarm
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import Grammar

log = structlog.get_logger()

MAX_PARTS = 100  # after a question; a proposal has at most 32, and of those before it there may be a rest
COMPILING_SECONDS = 0.05  # to wait for a draft that may have to compile a grammar
FINISH_SECONDS = 1.0  # for the draft to read the last request


class DraftState(Enum):
    """What a session may do next; `DraftSession` draws the transitions."""

    CLOSED = auto()
    ASKED = auto()
    READY = auto()
    LATE = auto()


class DraftStream:
    """A stream, how much of the sequence it was told, and the proposal it was last asked for."""

    def __init__(self, client: DraftClient, grammar: Grammar | None = None) -> None:
        """Begin to read; the first `ask` must open the stream, of a session with this grammar."""
        self.state = DraftState.CLOSED
        self.told = 0
        """How many of the committed tokens it was told."""
        self.known = 0
        """How many of them it was told when the draft model was last asked."""
        self.is_read = True
        """Whether the draft reads: writing did not take as long as the deadline, after which the stream has ended."""
        self.has_proposed = False
        """Whether any proposal was complete."""
        self.code: grpc.StatusCode | None = None
        """What it ended with."""
        self.ended_at = 0.0
        """In seconds of `perf_counter`."""
        self._client, self._grammar, self._call = client, grammar, client.draft()
        self._proposal = Proposal(-1)
        self._asked_at, self._num_parts = 0.0, 0
        self._progress, self._alarm = asyncio.Event(), Alarm(self._give_up)
        self._reader = asyncio.create_task(self._read())

    async def ask(
        self,
        request: pb.DraftRequest,
        proposal: Proposal,
        num_committed: int,
        longest_seconds: float,
        *,
        patient: bool = True,
    ) -> None:
        """Send a request with everything committed; fill the proposal until it is complete or the deadline passes.

        The deadline is what is long for this draft, at most `longest_seconds`; who is not patient does not wait until a
        grammar is compiled. Raises RuntimeError if the stream knows more than was committed.
        """
        if not self.known <= self.told <= num_committed:
            raise RuntimeError(f"the draft knows {self.known} and was told {self.told} of {num_committed} tokens")
        self.state, self._proposal = DraftState.ASKED, proposal
        self.told = num_committed
        if proposal.num_new:
            self.known = num_committed
        self._asked_at, self._num_parts, self.is_read = perf_counter(), 0, False
        deadline_seconds = self._client.pace.deadline_seconds(proposal.num_unforced, proposal.num_new, longest_seconds)
        self._alarm.set(deadline_seconds)
        try:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it ended: the reader says why
                await self._call.write(request)
            self.is_read = True
            if proposal.compiles and not patient and not self._alarm.rang:
                self._alarm.set(min(COMPILING_SECONDS, deadline_seconds))
            await self._until_answered()
        except asyncio.CancelledError:
            if self.is_read or not self._alarm.rang:
                raise
        finally:
            self._alarm.stop()
        if self._alarm.rang:
            log.info("draft is late: going on without", round=proposal.round, arrived=len(proposal.token_ids))

    async def finish(self, request: pb.DraftRequest) -> None:
        """Send a last request, and let the draft end the stream when it has read it."""
        try:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                async with asyncio.timeout(FINISH_SECONDS):
                    await self._call.write(request)
                    await self._call.done_writing()
                    await self._reader
        finally:
            self.close()

    def close(self) -> None:
        """End the stream."""
        self._alarm.close()
        self._reader.cancel()

    def _give_up(self) -> None:
        """End the wait for a proposal; and the stream, if the draft does not even read what it is asked."""
        if self.state is DraftState.ASKED:
            self.state = DraftState.LATE
        if self.is_read:
            self._progress.set()
        else:
            self._call.cancel()

    async def _until_answered(self) -> None:
        while self.state is DraftState.ASKED:
            self._progress.clear()
            await self._progress.wait()

    async def _read(self) -> None:
        incarnation = None
        try:
            async for part in self._call:
                self._num_parts += 1
                if incarnation is None:
                    incarnation = part.incarnation
                    self._client.meet(incarnation)
                if self._num_parts > MAX_PARTS or incarnation != part.incarnation:
                    log.warning("draft left alone: it answers what it was not asked")
                    self._client.shun()
                    break
                if part.round == self._proposal.round:
                    self._take(part)
        except grpc.aio.AioRpcError as error:
            log.info("draft stream ended", reason=error.details() or error.code().name)
            self.code = error.code()
        finally:
            self._call.cancel()
            self.state, self.ended_at = DraftState.CLOSED, perf_counter()
            self.told = self.known = 0
            self._progress.set()

    def _take(self, part: pb.DraftResponse) -> None:
        proposal = self._proposal
        proposal.add(part)
        if part.last and self.state is not DraftState.READY:
            if not proposal.compiles:
                self._client.pace.add(proposal.num_unforced, proposal.num_new, perf_counter() - self._asked_at)
            if self._grammar and proposal.proposer == pb.PROPOSER_DRAFT_MODEL:
                self._client.compiled.add(self._grammar)
            self.state, self.has_proposed = DraftState.READY, True
        self._progress.set()
