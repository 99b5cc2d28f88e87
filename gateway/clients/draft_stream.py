"""One stream to the draft service, from its opening to its end."""

import asyncio
from contextlib import suppress
from enum import Enum, auto
from time import perf_counter

import grpc
import structlog

from gateway.clients.draft_client import DraftCall
from gateway.clients.proposal import Proposal
from shared.pb import specdec_pb2 as pb

log = structlog.get_logger()

_PAUSE_SECONDS = 1.0  # after a refused stream, for example when no slot was free


class DraftState(Enum):
    """What a session may do next; `DraftSession` draws the transitions."""

    CLOSED = auto()
    ASKED = auto()
    READY = auto()
    LATE = auto()


class DraftStream:
    """A stream, how much of the sequence it was told, and the proposal it was last asked for."""

    def __init__(self, call: DraftCall) -> None:
        """Begin to read; the first `ask` must open the stream."""
        self.state = DraftState.CLOSED
        self.told = 0
        """How many of the committed tokens it was told."""
        self.known = 0
        """How many of them it was told when the draft model was last asked."""
        self.reopen_at = 0.0
        """When another stream may replace it, in seconds of `perf_counter`."""
        self._call = call
        self._proposal = Proposal(-1)
        self._progress = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def ask(
        self, request: pb.DraftRequest, proposal: Proposal, num_committed: int, deadline_seconds: float
    ) -> None:
        """Send a request with everything committed; fill the proposal until it is complete or the deadline passes.

        Raises RuntimeError if the stream knows more than was committed.
        """
        if not self.known <= self.told <= num_committed:
            raise RuntimeError(f"the draft knows {self.known} and was told {self.told} of {num_committed} tokens")
        self.state, self._proposal = DraftState.ASKED, proposal
        self.told = num_committed
        if proposal.num_new:
            self.known = num_committed
        try:
            async with asyncio.timeout(deadline_seconds):
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it ended: the reader says why
                    await self._call.write(request)
                await self._until_answered()
        except TimeoutError:
            log.info("draft is late: going on without", round=proposal.round, arrived=len(proposal.token_ids))
            if self.state is DraftState.ASKED:
                self.state = DraftState.LATE

    def close(self) -> None:
        """End the stream."""
        self._reader.cancel()

    async def _until_answered(self) -> None:
        while self.state is DraftState.ASKED:
            self._progress.clear()
            await self._progress.wait()

    async def _read(self) -> None:
        try:
            async for part in self._call:
                if part.round == self._proposal.round:
                    self._proposal.add(part)
                    if part.last:
                        self.state = DraftState.READY
                    self._progress.set()
        except grpc.aio.AioRpcError as error:
            log.info("draft stream ended", reason=error.details() or error.code().name)
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                self.reopen_at = perf_counter() + _PAUSE_SECONDS
        finally:
            self._call.cancel()
            self.state = DraftState.CLOSED
            self.told = self.known = 0
            self._progress.set()
