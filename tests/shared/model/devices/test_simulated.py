"""A simulated device: the tokens of the CPU in the time of the profile, without taking CPU."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from profiles import write_profile
from services import StartService, decoder

from gateway.rounds.round import Round
from shared.errors import ModelError
from shared.model.devices.simulated import on_device
from shared.model.profile import PROFILES, Profile
from shared.model.runner import Rows, Runner, Segment
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.sampling_params import SamplingParams

PROMPT = list(range(40, 70))
PARAMS = SamplingParams(temperature=0)
TARGET_MS, DRAFT_MS = 60.0, 20.0
TOLERANCE_MS = 15.0


@pytest.fixture(scope="module")
def addresses(start: StartService, toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Start a simulated target and a simulated draft."""
    folder = tmp_path_factory.mktemp("profiles")
    target = write_profile(folder / "slow-target.toml", TARGET_MS)
    draft = write_profile(folder / "slow-draft.toml", DRAFT_MS)
    return (
        start("target_service", model=toy[0], device="simulated", profile=target).address,
        start("draft_service", model=toy[1], device="simulated", profile=draft, ahead="off").address,
    )


async def rounds_of(target: str, draft: str | None, k: int, max_tokens: int = 12) -> list[Round]:
    """Decode the prompt with these services."""
    async with decoder(target, draft) as decode:
        return [done async for done in decode.decode(PROMPT, PARAMS, max_tokens, k)]


async def test_rounds_take_what_the_profile_says(addresses: tuple[str, str]) -> None:
    """A plain round takes a target pass; a round with k draft tokens takes k draft passes more."""
    plain = await rounds_of(*addresses, k=0)
    speculative = [done for done in await rounds_of(*addresses, k=3) if done.num_drafted == 3]
    for rounds, expected in ((plain[1:], TARGET_MS), (speculative[1:], TARGET_MS + 3 * DRAFT_MS)):
        times = sorted(done.time.seconds * 1000 for done in rounds)
        assert expected <= times[0]
        assert times[len(times) // 2] < expected + TOLERANCE_MS


def test_waiting_takes_no_cpu(tmp_path: Path) -> None:
    """A pass of 60 ms over a model that costs nothing takes hardly any CPU time."""

    class Nothing(Runner):
        device = kernel = quant = inexact = ""
        num_slots = max_length = 1

        def extend(self, segments: object) -> list[Rows]:
            return []

        def copy(self, source: int, slot: int, num_tokens: int) -> bool:
            return False

        def clear(self, slot: int) -> None:
            pass

    paced = on_device(Nothing(), "simulated", str(write_profile(tmp_path / "any.toml", 60)))
    started, cpu = time.perf_counter(), time.thread_time()
    paced.extend([Segment(0, 0, [1], 1)])
    assert paced.device == "simulated: any"
    assert 0.06 <= time.perf_counter() - started < 0.2
    assert time.thread_time() - cpu < 0.02


async def test_same_tokens_as_on_the_cpu(
    start: StartService, toy: tuple[Path, Path], addresses: tuple[str, str]
) -> None:
    """The device changes the time and not the tokens, and every description of it says so."""
    cpu = start("target_service", model=toy[0], dtype="bfloat16").address
    on_cpu = await rounds_of(cpu, None, k=0)
    simulated = await rounds_of(*addresses, k=3)
    assert [t for done in simulated for t in done.token_ids] == [t for done in on_cpu for t in done.token_ids]
    async with decoder(*addresses) as decode:
        assert decode.target.device == "simulated: slow-target"


async def draft_for(address: str, num_rounds: int, k: int) -> float:
    """Ask a draft service for so many proposals of k tokens; return the seconds that it takes."""
    started = time.perf_counter()
    async with grpc.aio.insecure_channel(address) as channel:

        async def requests() -> AsyncIterator[pb.DraftRequest]:
            sampling = PARAMS.to_pb()
            yield pb.DraftRequest(open=pb.DraftOpen(prompt_token_ids=PROMPT, sampling=sampling, num_draft_tokens=k))
            for number in range(1, num_rounds):
                await answered.acquire()
                told = pb.DraftAdvance(round=number, position=len(PROMPT) + number - 1, token_ids=[50])
                told.num_draft_tokens = k
                yield pb.DraftRequest(advance=told)
            await answered.acquire()

        answered = asyncio.Semaphore(0)
        async for part in pb_grpc.DraftServiceStub(channel).Draft(requests()):
            if part.last:
                answered.release()
    return time.perf_counter() - started


async def test_services_overlap(addresses: tuple[str, str]) -> None:
    """Two devices at work at once take as long as the longer one."""
    await draft_for(addresses[1], 1, 1)
    alone = await draft_for(addresses[1], 10, 4)
    started = time.perf_counter()
    drafting, rounds = await asyncio.gather(draft_for(addresses[1], 10, 4), rounds_of(addresses[0], None, 0))
    together = time.perf_counter() - started
    verifying = sum(done.time.seconds for done in rounds)
    assert alone > 10 * 4 * DRAFT_MS / 1000
    assert together < 0.75 * (alone + verifying)
    assert drafting < 1.5 * alone


async def test_network_delay(start: StartService, toy: tuple[Path, Path]) -> None:
    """Each message is late by the delay, and the parts of a proposal are late together."""
    delay_ms = 30
    target = start("target_service", model=toy[0], network_delay_ms=delay_ms).address
    draft = start("draft_service", model=toy[1], network_delay_ms=delay_ms).address
    plain = sorted(done.time.wire * 1000 for done in await rounds_of(target, None, k=0))
    assert 2 * delay_ms <= plain[0]
    assert plain[len(plain) // 2] < 2 * delay_ms + 50
    drafted = sorted(done.time.wire * 1000 for done in await rounds_of(target, draft, k=6) if done.num_drafted > 1)
    assert 4 * delay_ms <= drafted[0]
    assert drafted[len(drafted) // 2] < 4 * delay_ms + 70


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_profiles_of_the_repository(path: Path) -> None:
    """Each one can be read, says where its figures come from, and gives each pass of more rows no less time."""
    profile = Profile.load(path.stem)
    assert profile.source
    assert profile.assumed
    passes = [profile.seconds(5 * n, n) for n in range(1, 33)]
    assert passes == sorted(passes)
    assert passes[0] > 0


@pytest.mark.parametrize("text", ["rows = [1]", "not toml"])
def test_bad_profile(tmp_path: Path, text: str) -> None:
    """A profile that is missing or wrong stops the start and says which one it is."""
    (tmp_path / "bad.toml").write_text(text)
    for name in (str(tmp_path / "bad.toml"), "no-such-profile"):
        with pytest.raises(ModelError, match="profile"):
            Profile.load(name)
