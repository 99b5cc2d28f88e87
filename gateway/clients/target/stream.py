"""One stream to one replica of the target, from its opening to its end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf
from time import perf_counter
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from gateway.clients.answer_check import problem_in, sane
from gateway.clients.deadlines import Deadlines
from gateway.clients.errors import NotReachedError, SessionFailedError, SilentError, TargetUnavailableError
from shared.alarm import Alarm
from shared.errors import InvalidFieldError, NoFreeSlotError, NoTokenError, OutriderError
from shared.pb import specdec_pb2 as pb
from shared.rpc import OPENED

VerifyCall = grpc.aio.StreamStreamCall[pb.VerifyRequest, pb.VerifyResponse]

ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)  # from a write to a stream that has ended: reading says why
LEAVING = "Cancelling all calls"  # gRPC's words for the streams that are left when a server's grace is over
BROKEN = "Internal error from Core"  # and for a write that failed, until it has taken in the status that was sent
STATUS_SECONDS = 1.0  # for that
PROGRESSES = 5  # how often, while it may wait for the first token, a session hears that its prompt is being read


class TargetStream:
    """A stream. Whatever it is told has a deadline, and is held against what was asked."""

    def __init__(self, call: VerifyCall, deadlines: Deadlines) -> None:
        """Take over a stream that nothing was written to."""
        self.incarnation = ""
        """Which process is at the other end; empty while nothing is known of it, and for one of an older release."""
        self._call, self._deadlines = call, deadlines
        self._alarm = Alarm(call.cancel)  # of a round; what waits for its answer is then cancelled
        self._end = asyncio.get_running_loop().create_future()  # its code, details and pushback
        call.add_done_callback(self._take_end)
        self._reached = False  # whether a replica has the session
        self._round = 0

    async def open(self, opening: pb.VerifyOpen, check: Callable[[pb.Opened], None], *, introduces: bool) -> pb.Opened:
        """Open the session. `check` may refuse a replica by raising, if possible before the session waits there.

        introduces: whether replicas say who they are before they have a slot; those of an older release do not.
        Raises what `check` raises, InvalidFieldError, NoFreeSlotError, TargetUnavailableError.
        """
        seconds = self._deadlines.open_seconds + opening.max_wait_ms / 1000
        opening.progress_ms = round(self._deadlines.first_token_seconds * 1000 / PROGRESSES)
        async with self._answer(self._deadlines.reach_seconds if introduces else seconds):
            await self._write(pb.VerifyRequest(open=opening))
            described = dict(await self._call.initial_metadata()).get(OPENED)
            if isinstance(described, bytes):
                self._meet(pb.Opened.FromString(described), check)
        async with self._answer(seconds):
            opened = (await self._read()).opened
        self._meet(opened, check)
        return opened

    async def verify(self, position: int, draft_ids: Sequence[int], room: int, vocab_size: int) -> pb.VerifyResponse:
        """Run one round, in which at most `room` tokens may be committed.

        Raises InvalidFieldError, NoTokenError, TargetUnavailableError.
        """
        request = pb.VerifyDraft(round=self._round, position=position, draft_token_ids=draft_ids)
        seconds = self._deadlines.round_seconds if self._round else self._deadlines.first_token_seconds
        started = perf_counter()
        self._alarm.set(seconds)
        try:
            await self._write(pb.VerifyRequest(verify=request))
            response = await self._read()
            while response.HasField("num_prefilled") and not self._round:  # it reads a long prompt, and is not lost
                self._alarm.set(seconds)
                response = await self._read()
        except asyncio.CancelledError:
            if self._alarm.rang:
                raise self._silence(seconds) from None
            raise
        except (DecodeError, grpc.aio.AioRpcError) as error:
            raise await self._error(error) from error
        finally:
            self._alarm.stop()
        if problem := problem_in(response, (self._round, position), draft_ids, room, vocab_size):
            raise TargetUnavailableError(f"the target's answer is wrong: {problem}")
        if not sane(response.timing, perf_counter() - started if self._round else inf):  # the first pass began before
            response.ClearField("timing")
        self._round += 1
        return response

    def close(self) -> None:
        """End the stream."""
        self._alarm.close()
        self._call.cancel()

    def _meet(self, opened: pb.Opened, check: Callable[[pb.Opened], None]) -> None:
        self._reached, self.incarnation = True, opened.incarnation
        check(opened)

    async def _write(self, request: pb.VerifyRequest) -> None:
        with suppress(*ENDED):
            await self._call.write(request)

    async def _read(self) -> pb.VerifyResponse:
        response = await self._call.read()
        if not isinstance(response, pb.VerifyResponse):  # the stream ended: its status says why
            raise TargetUnavailableError(f"the target ended the stream: {await self._call.details()}")
        return response

    @asynccontextmanager
    async def _answer(self, seconds: float) -> AsyncIterator[None]:
        """Raise the error that the stream's end means, or its silence for so long."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise self._silence(seconds) from None
        except (DecodeError, grpc.aio.AioRpcError) as error:
            raise await self._error(error) from error

    def _silence(self, seconds: float) -> TargetUnavailableError:
        kind = TargetUnavailableError if self._reached else SilentError
        return kind(f"the target did not answer in {seconds:g} s")

    async def _error(self, error: Exception) -> OutriderError:  # noqa: PLR0911  # a table
        if isinstance(error, DecodeError):
            return TargetUnavailableError("the target's answer is wrong: it cannot be read")
        await asyncio.wait([self._end], timeout=STATUS_SECONDS)
        code, details, pushback = (
            self._end.result() if self._end.done() else (await self._call.code(), await self._call.details(), "")
        )
        match code:
            case grpc.StatusCode.INVALID_ARGUMENT:
                field, _, problem = details.partition(": ")
                return InvalidFieldError(field, problem)
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                if pushback.isdigit():
                    return NoFreeSlotError(details, int(pushback))
                return InvalidFieldError("prompt", f"too much for one message to the target: {details}")  # gRPC's own
            case grpc.StatusCode.DATA_LOSS:
                return NoTokenError(details)
            case grpc.StatusCode.INTERNAL if details == BROKEN:
                kind = TargetUnavailableError if self._reached else NotReachedError
                return kind("target service: the stream broke")
            case grpc.StatusCode.INTERNAL:
                return SessionFailedError(f"target service: {details}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:  # the target's: it was asked nothing for too long
                return NotReachedError(f"target service: {details}")
            case grpc.StatusCode.UNAVAILABLE if details == LEAVING or not self._reached:
                return NotReachedError(f"target service: {details}")
            case _:
                return TargetUnavailableError(f"target service: {details or code.name}")

    def _take_end(self, call: VerifyCall) -> None:
        """Keep the status that the target sent: a write that fails then, or failed before, has gRPC forget it."""
        code, details, trailing = map(_at_once, (call.code(), call.details(), call.trailing_metadata()))
        if details != BROKEN and not self._end.done():
            self._end.set_result((code, details, str(dict(trailing).get("grpc-retry-pushback-ms", ""))))


def _at_once(known: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("gRPC waits for the status of a stream that is done")
