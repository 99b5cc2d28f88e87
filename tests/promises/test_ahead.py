"""The draft works ahead while the target verifies: right guesses are there at once, wrong ones leave no trace."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from profiles import write_profile
from services import StartService, decoder
from test_lossless import CASES, run_all

from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.engine.job import Job
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.outcomes import Outcome
from shared.model.engine.session import Session
from shared.model.engine.watchdog import Watchdog
from shared.model.engine.worker import Worker
from shared.model.sampling.sampler import Sampler
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.sampling_params import SamplingParams

PROMPT = list(range(40, 70))
SAMPLING = pb.SamplingParams(temperature=1, top_p=1, seed=3)
K = 4


class Stream:
    """A draft session that the test drives message by message."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Start the stream."""
        self._call: Any = pb_grpc.DraftServiceStub(channel).Draft()

    async def open(self, prompt: Sequence[int], k: int) -> tuple[list[int], int]:
        """Open the session; return its first proposal, and how many passes were made for it since it was asked for."""
        opening = pb.DraftOpen(prompt_token_ids=prompt, sampling=SAMPLING, num_draft_tokens=k)
        return await self._ask(pb.DraftRequest(open=opening))

    async def advance(self, number: int, position: int, token_ids: Sequence[int]) -> tuple[list[int], int]:
        """Report what was committed; return the next proposal and its passes."""
        advance = pb.DraftAdvance(round=number, position=position, token_ids=token_ids, num_draft_tokens=K)
        return await self._ask(pb.DraftRequest(advance=advance))

    async def _ask(self, request: pb.DraftRequest) -> tuple[list[int], int]:
        await self._call.write(request)
        parts: list[pb.DraftResponse] = []
        while not (parts and parts[-1].last):
            parts.append(await self._call.read())
            timings = parts[-1].token_timings
            assert parts[-1].timing.forward_us >= sum(timing.forward_us for timing in timings)
            assert len(timings) in (0, len(parts[-1].token_ids))
        return [t for part in parts for t in part.token_ids], sum(part.timing.num_passes for part in parts)


@pytest.mark.parametrize("ahead", ["on", "off"])
async def test_right_guesses_are_there_at_once(start: StartService, toy: tuple[Path, Path], ahead: str) -> None:
    """If its own guess of the bonus token is committed, a draft that works ahead has the next k tokens already.

    If another token is committed, it makes them anew, the same as a session that begins there.
    """
    address = start("draft_service", model=toy[1], dtype="float32", ahead=ahead).address
    async with grpc.aio.insecure_channel(address) as channel:
        way, _ = await Stream(channel).open(PROMPT, 14)
        stream = Stream(channel)
        assert (await stream.open(PROMPT, K))[0] == way[:K]
        await asyncio.sleep(0.5)  # the target verifies
        following, num_passes = await stream.advance(1, len(PROMPT), way[: K + 1])
        assert (following, num_passes) == (way[K + 1 : 2 * K + 1], 0 if ahead == "on" else K)
        await asyncio.sleep(0.5)
        other = [way[2 * K], (way[2 * K] + 1) % 400]
        anew, num_passes = await stream.advance(2, len(PROMPT) + K + 1, [*following[:-1], *other])
        fresh, _ = await Stream(channel).open([*PROMPT, *way[: 2 * K], *other], K)
        assert (anew, num_passes) == (fresh, K)


@pytest.mark.parametrize("draft", ["good", "perfect"])
async def test_on_equals_off(start: StartService, toy: tuple[Path, Path], draft: str) -> None:
    """Working ahead changes no token, whether it is mostly right or often wrong, with 8 sessions at once."""
    target = start("target_service", model=toy[0], dtype="float32").address
    folder = {"good": toy[1], "perfect": toy[0]}[draft]
    async with decoder(target, start("draft_service", model=folder, dtype="float32", ahead="on").address) as decode:
        alone = await run_all(decode, CASES, at_once=8, k=0)
        together = await run_all(decode, CASES, at_once=8)
    assert [tokens for tokens, _, _ in together] == [tokens for tokens, _, _ in alone]


def test_work_ahead_waits_while_anybody_waits() -> None:
    """A pass includes work ahead only if no requested work is waiting, prefills included."""
    worker = Worker(
        cast("CpuRunner", None), prefill_rows=64, meter=cast("EngineMeter", None), watchdog=cast("Watchdog", None)
    )

    def session(cached: int) -> Session:
        return Session(0, 100, Sampler(SamplingParams()), list(range(50)), cached)

    deliver = list[Outcome | Exception | None]().append
    jobs = [Job(session(49), (), 1, deliver, ahead=True), Job(session(49), (), 1, deliver), Job(session(0))]
    for one in jobs:
        worker._jobs[one.session] = one
    assert [planned for planned, _ in worker._plan()] == jobs[1:]
    for one in jobs[1:]:
        del worker._jobs[one.session]
    assert [planned for planned, _ in worker._plan()] == jobs[:1]


async def test_a_pass_in_vain_is_the_drafts(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A round that waits for the rest of a pass, though it was in vain, reports it as the draft's."""
    pass_ms = 500
    profile = write_profile(tmp_path / "draft.toml", pass_ms)
    draft = start("draft_service", model=toy[1], device="simulated", profile=profile, ahead="on").address
    async with grpc.aio.insecure_channel(draft) as channel:
        call: Any = pb_grpc.DraftServiceStub(channel).Draft()
        opening = pb.DraftOpen(prompt_token_ids=PROMPT, sampling=SAMPLING, num_draft_tokens=1)
        await call.write(pb.DraftRequest(open=opening))
        [guess] = (await call.read()).token_ids
        await asyncio.sleep(0.1)  # the target verifies
        advance = pb.DraftAdvance(round=1, position=len(PROMPT), token_ids=[(guess + 1) % 400], num_draft_tokens=1)
        await call.write(pb.DraftRequest(advance=advance))
        part = await call.read()
    [token_timing] = part.token_timings
    assert token_timing.forward_us >= pass_ms * 1000
    assert part.timing.forward_us > token_timing.forward_us + 20_000
    assert (part.timing.num_passes, part.timing.queue_us) == (1, token_timing.queue_us)


async def test_work_ahead_overlaps_the_verify(
    start: StartService, toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """If draft and target each have a (simulated) device, a round takes only the verify, not draft plus verify."""
    folder = tmp_path_factory.mktemp("profiles")
    target = start(
        "target_service", model=toy[0], device="simulated", profile=write_profile(folder / "target.toml", 100)
    ).address
    medians = {}
    for ahead in ("on", "off"):
        draft = start(
            "draft_service",
            model=toy[0],
            device="simulated",
            profile=write_profile(folder / "draft.toml", 16),
            ahead=ahead,
        ).address
        async with decoder(target, draft) as decode:
            params = SamplingParams(temperature=1, seed=3)
            rounds = [done async for done in decode.decode(PROMPT, params, 45, K)]
        medians[ahead] = sorted(done.time.seconds for done in rounds[1:])[len(rounds) // 2]
        assert all(done.num_accepted == done.num_drafted for done in rounds)
    assert medians["off"] > 0.100 + K * 0.016
    assert medians["on"] < 0.100 + 2 * 0.016
