"""Adaptive k over real processes: a target and a draft with an accelerator's timing."""

import asyncio
import time
from pathlib import Path

import pytest
from adversary import Adversary, serve
from profiles import write_profile
from services import StartService, decoder

from gateway.rounds.decoder import Decoder
from shared.sampling_params import SamplingParams

STOP = 3
TARGET_MS, DRAFT_MS = 150.0, 30.0  # long compared with the toy pair's own passes, even on a busy machine


async def speed(decode: Decoder, num_sessions: int, k: int | None, tokens: int) -> float:
    """Return the tokens per second of this many sessions at once."""

    async def one(number: int) -> int:
        params = SamplingParams(temperature=1.0, seed=number)
        rounds = decode.decode(list(range(40 + number, 60 + number)), params, tokens, k)
        return sum([len(done.token_ids) async for done in rounds])

    started = time.perf_counter()
    committed = sum(await asyncio.gather(*map(one, range(num_sessions))))
    return committed / (time.perf_counter() - started)


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a profile for the target and one for the draft: any number of rows costs the same."""
    folder = tmp_path_factory.mktemp("profiles")
    return write_profile(folder / "target.toml", TARGET_MS), write_profile(folder / "draft.toml", DRAFT_MS)


@pytest.fixture(scope="module")
def target(start: StartService, toy: tuple[Path, Path], profiles: tuple[Path, Path]) -> str:
    """Start the target; return its address."""
    settings = {"device": "simulated", "profile": profiles[0], "num_slots": 32, "max_length": 256}
    return start("target_service", model=toy[0], **settings).address


@pytest.mark.parametrize("num_sessions", [1, 8, 32])
async def test_an_adversarial_draft_costs_little(target: str, num_sessions: int) -> None:
    """With a draft that is never right, adaptive k keeps the plain speed at any load.

    To within 10 %, taking the better of two alternating runs, since the test machine does other work too;
    `test_adaptive_k` requires 5 %.
    """
    async with decoder(target, None) as alone:
        adversary = Adversary(alone.target, STOP)
    async with serve(adversary) as address, decoder(target, address) as decode:
        await speed(decode, num_sessions, None, 15)
        runs = [(await speed(decode, num_sessions, 0, 30), await speed(decode, num_sessions, None, 30)) for _ in "ab"]
    plain, adaptive = map(max, zip(*runs, strict=True))
    assert adaptive > 0.9 * plain


async def test_a_good_draft_pays(
    start: StartService, toy: tuple[Path, Path], target: str, profiles: tuple[Path, Path]
) -> None:
    """With the toy draft, adaptive k is faster than plain decoding."""
    draft = start("draft_service", model=toy[1], device="simulated", profile=profiles[1], max_length=256).address
    async with decoder(target, draft) as decode:
        await speed(decode, 1, None, 40)
        assert await speed(decode, 1, None, 60) > 1.2 * await speed(decode, 1, 0, 40)
