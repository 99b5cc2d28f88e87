"""A client that says nothing, reads nothing, or is no longer there, does not keep its slot."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from services import Service, decoder, service
from test_bad_input import advance, draft_open, outcome, send, target_open, verify

from shared import rpc
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.sampling_params import SamplingParams
from shared.streams import SPARE

IDLE = grpc.StatusCode.DEADLINE_EXCEEDED
SETTINGS: dict[str, Any] = {"num_slots": 1, "slot_wait_seconds": 20, "max_waiting": 1}


@pytest.fixture(scope="module")
def target(toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve the toy target, with one slot and little patience."""
    log = tmp_path_factory.mktemp("log") / "target.log"
    with service("target_service", log, model=toy[0], idle_seconds=1, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def draft(toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve the toy draft, likewise."""
    log = tmp_path_factory.mktemp("log") / "draft.log"
    with service("draft_service", log, model=toy[1], idle_seconds=1, **SETTINGS) as running:
        yield running


async def check_free(stub: Any, within_seconds: float = 5) -> None:
    """Check that the service's only slot is free, or soon is."""
    messages: list[Any] = [target_open(), verify(0, 2)] if hasattr(stub, "Verify") else [draft_open()]
    start = stub.Verify if hasattr(stub, "Verify") else stub.Draft
    assert await outcome(start(send(messages), timeout=within_seconds)) == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize("messages", [[], [target_open()], [target_open(), verify(0, 2)]], ids=len)
async def test_a_target_client_that_says_nothing(target: Service, messages: list[pb.VerifyRequest]) -> None:
    """Its stream ends, before the first message as after each."""
    async with grpc.aio.insecure_channel(target.address) as channel:
        stub = pb_grpc.TargetServiceStub(channel)
        silent = stub.Verify()
        await silent.wait_for_connection()
        for message in messages:
            await silent.write(message)
        await check_free(stub)
        assert await outcome(silent) == (IDLE, "idle: no message came for 1 s")


@pytest.mark.parametrize("messages", [[], [draft_open()], [draft_open(), advance(1, 2, [5])]], ids=len)
async def test_a_draft_client_that_says_nothing(draft: Service, messages: list[pb.DraftRequest]) -> None:
    """The same at the draft."""
    async with grpc.aio.insecure_channel(draft.address) as channel:
        stub = pb_grpc.DraftServiceStub(channel)
        silent = stub.Draft()
        await silent.wait_for_connection()
        for message in messages:
            await silent.write(message)
        await check_free(stub)
        assert await outcome(silent) == (IDLE, "idle: no message came for 1 s")


async def test_a_client_that_reads_nothing(target: Service) -> None:
    """A response that does not leave the service gives up its slot."""
    everything = pb.SamplingParams(top_p=1, logprobs=True, top_logprobs=20)
    small = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
    async with (
        grpc.aio.insecure_channel(target.address) as channel,
        grpc.aio.insecure_channel(target.address, options=small) as deaf_channel,
    ):
        deaf = pb_grpc.TargetServiceStub(deaf_channel).Verify()
        await deaf.write(target_open(max_tokens=2000, sampling=everything))
        for number in range(1990):
            await deaf.write(verify(number, 2 + number))
        await check_free(pb_grpc.TargetServiceStub(channel), 30)
        deaf.cancel()


async def test_too_many_streams(target: Service) -> None:
    """Those that have not said what they want are counted, too."""
    async with grpc.aio.insecure_channel(target.address) as channel:
        stub = pb_grpc.TargetServiceStub(channel)
        silent = [stub.Verify() for _ in range(SETTINGS["num_slots"] + SETTINGS["max_waiting"] + SPARE + 100)]
        ended = await asyncio.gather(*map(outcome, silent))
        codes = [code for code, _ in ended]
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) > 0
        assert {*codes} == {IDLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        await check_free(stub)


async def test_a_session_that_pauses(target: Service, draft: Service) -> None:
    """A request whose reader pauses loses its slots, and goes on with the same tokens."""
    async with decoder(target.address, draft.address) as decode:
        params = SamplingParams(seed=2)
        tokens: list[list[int]] = []
        for pause in (0, 1.5):
            got: list[int] = []
            async for done in decode.decode([5, 6, 7], params, 24, 2):
                if not got:
                    await asyncio.sleep(pause)
                got += done.token_ids
            tokens.append(got)
        assert tokens[0] == tokens[1]


@asynccontextmanager
async def proxy(address: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Forward connections to the address until the event is set; then say and take nothing, without closing."""
    host, _, port = address.rpartition(":")
    silent = asyncio.Event()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            if silent.is_set():
                await asyncio.sleep(3600)
            writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_read, to_write = await asyncio.open_connection(host, int(port))
        await asyncio.gather(forward(reader, to_write), forward(to_read, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", silent
    server.close()


def plant_impatience() -> None:
    """Ping, and wait for the answer, a fifteenth of the time."""
    options: dict[str, Any] = dict(rpc.OPTIONS)
    for name in ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        options[name] //= 15
    rpc.OPTIONS[:] = options.items()


async def test_a_peer_that_vanished(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """An idle stream whose connection goes silent is noticed, though nobody has sent anything for many pings."""
    settings = {"model": toy[0], "plant": plant_impatience, "idle_seconds": 600, **SETTINGS}
    with service("target_service", tmp_path / "target.log", **settings) as running:
        async with proxy(running.address) as (address, silent):
            vanished = grpc.aio.insecure_channel(address)
            call = pb_grpc.TargetServiceStub(vanished).Verify()
            await call.write(target_open())
            await call.write(verify(0, 2))
            await call.read()
            await asyncio.sleep(5)
            silent.set()
            async with grpc.aio.insecure_channel(running.address) as channel:
                await check_free(pb_grpc.TargetServiceStub(channel), 10)
            await vanished.close()


def test_the_options_notice_a_peer_within_35_seconds() -> None:
    """What the test above has made quicker."""
    options: dict[str, Any] = dict(rpc.OPTIONS)
    waits = max(options["grpc.keepalive_timeout_ms"], options["grpc.http2.ping_timeout_ms"])
    assert options["grpc.keepalive_time_ms"] + waits <= 35_000
