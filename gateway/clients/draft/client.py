"""The gateway's side of the draft service: whether it is up, and whether it fits the target."""

import asyncio
from collections.abc import Coroutine
from time import perf_counter

import grpc
import structlog

from gateway.clients.draft.compiled_grammars import CompiledGrammars
from gateway.clients.draft.pace import DraftPace
from gateway.clients.pairing import mismatches
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPTIONS

log = structlog.get_logger()

SHUN_SECONDS = 60.0
MAX_KNOWN = 64
# The longest answer is one of GetModelInfo. What a draft sends is not to fill the memory.
LIMITS = list((dict[str, object](OPTIONS) | {"grpc.max_receive_message_length": 2**20}).items())

DraftCall = grpc.aio.StreamStreamCall[pb.DraftRequest, pb.DraftResponse]


class DraftClient:
    """The draft service, which may come and go."""

    def __init__(self, address: str, target: pb.ModelInfo) -> None:
        """Prepare to connect to `host:port`; `watch` does."""
        self._channel = grpc.aio.insecure_channel(address, options=LIMITS)
        self._stub = pb_grpc.DraftServiceStub(self._channel)
        self._target = target
        self.info: pb.DraftServiceGetModelInfoResponse | None = None
        """What it serves; None unless it is up and fits the target."""
        self.pace = DraftPace()
        """How long its proposals take."""
        self.compiled = CompiledGrammars()
        """The grammars that it has."""
        self._known: set[str] = set()  # the incarnations that were met
        self._shunned_until = 0.0  # in seconds of `perf_counter`
        self._checking: asyncio.Task[None] | None = None
        self._leaving = set[asyncio.Task[None]]()

    @property
    def vocab_size(self) -> int:
        """How many tokens the target has."""
        return self._target.vocab_size

    @property
    def shares_cpu(self) -> bool:
        """Whether it probably computes on the target's cores: both run on a CPU."""
        return self.info is not None and self.info.model_info.device == self._target.device == "cpu"

    @property
    def shunned(self) -> bool:
        """Whether to leave it alone, up or not."""
        return perf_counter() < self._shunned_until

    def shun(self) -> None:
        """Leave it alone for a while: it does not keep to the contract."""
        self._shunned_until = perf_counter() + SHUN_SECONDS

    def see_off(self, last_words: Coroutine[None, None, None]) -> None:
        """Run what ends a stream in the background, until the connection is closed."""
        task = asyncio.create_task(last_words)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def meet(self, incarnation: str) -> None:
        """Check what is served anew if a process answers that was not met yet: it may be another model's."""
        if incarnation and incarnation not in self._known and (not self._checking or self._checking.done()):
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known.add(incarnation)
            self._checking = asyncio.create_task(self._take_up())

    async def model_info(self, timeout_seconds: float) -> pb.DraftServiceGetModelInfoResponse | None:
        """Return what it serves; None if it does not answer in time."""
        try:
            request = pb.DraftServiceGetModelInfoRequest()
            return await self._stub.GetModelInfo(request, timeout=timeout_seconds, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            log.info("draft service does not answer", reason=error.details() or error.code().name)
            return None

    async def watch(self) -> None:
        """Keep `info` up to date, reconnecting as needed, until cancelled."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                if not self.info:
                    await self._take_up()
                if not self.info:
                    await asyncio.sleep(1)
                    continue
            elif state is not grpc.ChannelConnectivity.CONNECTING:  # seen for a moment when a connection is renewed
                if self.info:
                    log.warning("draft service lost: decoding plainly")
                self.info = None
            await self._channel.wait_for_state_change(state)

    def draft(self) -> DraftCall:
        """Start a stream."""
        return self._stub.Draft()

    async def close(self) -> None:
        """Close the connection."""
        for task in (*self._leaving, *([self._checking] if self._checking else [])):
            task.cancel()
        await self._channel.close()

    async def _take_up(self) -> None:
        info = await self.model_info(timeout_seconds=5)
        if not info:
            return
        self._known.add(info.incarnation)
        self.compiled.clear()
        if problems := mismatches(self._target, info):
            self.info = None
            log.error("draft does not fit the target: decoding plainly", problems=problems)
        else:
            if not self.info:
                log.info("draft service found: speculating", model=info.model_info.name or None)
            self.info = info
