"""Losing a replica of the target costs a delay, but no request as long as there is another replica."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
from services import CONNECTING_SECONDS, HALVES, StartService, after, decoder, service
from structlog.testing import capture_logs

from gateway.clients.deadlines import Deadlines
from gateway.clients.errors import TargetUnavailableError
from gateway.clients.target.client import TargetClient
from gateway.clients.target.replica_search import PAUSES_SECONDS
from gateway.rounds.decoder import Decoder
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.sampling_params import Grammar, SamplingParams

SLOTS = 8  # of each service
MAX_TOKENS = 48
PROMPTS = [list(range(40 + number, 80 + 3 * number)) for number in range(2 * SLOTS)]
SAMPLING = [
    {"temperature": 1.0},
    {"temperature": 0.0, "frequency_penalty": 1.5, "min_tokens": 40},
    {"temperature": 1.0, "grammar": Grammar("regex", "[a-z ]{400}")},
]
VerifyContext = grpc.aio.ServicerContext[pb.VerifyRequest, pb.VerifyResponse]
LOST = "target lost: the session goes on at another replica"


def parameters(number: int) -> SamplingParams:
    """Return the sampling parameters for the session with this number."""
    return SamplingParams(seed=number, logprobs=True, **SAMPLING[number % len(SAMPLING)])  # type: ignore[arg-type]


async def run(decode: Decoder, number: int, k: int = 4, progress: Callable[[], None] = lambda: None) -> list[int]:
    """Decode a session; return its tokens, and check that each has its log-probability."""
    token_ids: list[int] = []
    async for done in decode.decode(PROMPTS[number], parameters(number), MAX_TOKENS, k):
        assert len(done.logprobs) == len(done.token_ids)
        token_ids += done.token_ids
        progress()
    return token_ids


@pytest.mark.parametrize(
    ("signal_number", "num_moved"), [(signal.SIGTERM, 0), (signal.SIGKILL, SLOTS)], ids=["drained", "killed"]
)
async def test_target_lost_under_eight_streams(
    start: StartService, toy: tuple[Path, Path], tmp_path: Path, signal_number: signal.Signals, num_moved: int
) -> None:
    """16 sessions on two full replicas get the tokens that one replica gives; those of the lost one wait for slots."""
    stays, draft = (
        start(f"{name}_service", model=folder, dtype="float32") for name, folder in zip(HALVES, toy, strict=True)
    )
    async with decoder(stays.address, None) as alone:
        expected = [await run(alone, number, k=0) for number in range(2 * SLOTS)]
    with service("target_service", tmp_path / "target.log", model=toy[0], dtype="float32") as leaves:
        async with decoder(f"ipv4:{stays.address},{leaves.address}", draft.address, deadline_seconds=0.2) as decode:
            await asyncio.sleep(CONNECTING_SECONDS)
            progress = after(6 * SLOTS, lambda: leaves.send(signal_number))
            with capture_logs() as logs:
                got = await asyncio.gather(*(run(decode, number, progress=progress) for number in range(2 * SLOTS)))
            assert got == expected
            assert [log["event"] for log in logs].count(LOST) == num_moved
            assert await asyncio.to_thread(leaves.wait, 20) == (-9 if num_moved else 0)
            assert await run(decode, 0) == expected[0]  # new ones go to the replica that is left


async def test_a_frozen_target(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A target that stops without ending costs one deadline; its sessions go on elsewhere with the same tokens."""
    stays = start("target_service", model=toy[0], dtype="float32")
    async with decoder(stays.address, None) as alone:
        expected = [await run(alone, number, k=0) for number in range(4)]
    with service("target_service", tmp_path / "target.log", model=toy[0], dtype="float32") as freezes:
        deadlines = Deadlines(reach_seconds=2, round_seconds=2)
        async with decoder(f"ipv4:{stays.address},{freezes.address}", None, deadlines=deadlines) as decode:
            await asyncio.sleep(CONNECTING_SECONDS)
            progress = after(40, lambda: freezes.send(signal.SIGSTOP))
            with capture_logs() as logs:
                got = await asyncio.gather(*(run(decode, number, 0, progress) for number in range(4)))
    assert got == expected
    assert any("did not answer in 2 s" in log["reason"] for log in logs if log["event"] == LOST)


async def test_one_is_full(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Beside a replica that a long stream fills, short requests never wait while another one is idle."""
    settings = {"model": toy[0], "dtype": "float32", "num_slots": 1, "slot_wait_seconds": 20}
    one = start("target_service", **settings)
    with service("target_service", tmp_path / "target.log", **settings) as two:
        async with decoder(f"ipv4:{one.address},{two.address}", None) as decode:
            await asyncio.sleep(CONNECTING_SECONDS)
            holding = decode.decode(PROMPTS[0], SamplingParams(), MAX_TOKENS, 0)
            await anext(holding)
            started = time.monotonic()
            for _ in range(6):
                assert len([done async for done in decode.decode(PROMPTS[1], SamplingParams(), 3, 0)]) == 3
            assert time.monotonic() - started < 10
            await holding.aclose()


class Dying(pb_grpc.TargetServiceServicer):
    """Commits one token, 7, in one session, then dies."""

    def __init__(self) -> None:
        """Begin."""
        self.openings: list[pb.VerifyOpen] = []

    async def GetModelInfo(self, request: pb.TargetServiceGetModelInfoRequest, context: object) -> NoReturn:
        """Do nothing: never called."""
        raise NotImplementedError

    async def Verify(  # type: ignore[override]  # the generated base leaves sync or async open
        self, request_iterator: AsyncIterator[pb.VerifyRequest], context: VerifyContext
    ) -> None:
        """Answer only the very first `verify`."""
        self.openings.append((await anext(request_iterator)).open)
        if len(self.openings) == 1:
            await context.write(pb.VerifyResponse(opened=pb.Opened()))
            await anext(request_iterator)
            await context.write(pb.VerifyResponse(position=2, token_ids=[7]))
            await anext(request_iterator)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


async def test_the_last_target_lost() -> None:
    """Without another replica, a session ends with one error, after asking for a new slot with its tokens so far."""
    server, dying = grpc.aio.server(), Dying()
    pb_grpc.add_TargetServiceServicer_to_server(dying, server)
    client = TargetClient(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    async with client.session([5, 6], SamplingParams(logprobs=True, prompt_logprobs=True), max_tokens=9) as session:
        await session.verify([])
        with pytest.raises(TargetUnavailableError, match="target service: gone"):
            await session.verify([8])
    first, *again = dying.openings
    assert first.sampling.prompt_logprobs
    assert len(again) == len(PAUSES_SECONDS)
    for opening in again:
        assert (list(opening.prompt_token_ids), opening.sampling.output_start, opening.max_tokens) == ([5, 6, 7], 2, 8)
        assert not opening.sampling.prompt_logprobs
    await client.close()
    await server.stop(None)
