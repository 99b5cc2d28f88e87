"""Losing the draft costs speed, never a request; losing the client frees the slots."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from services import StartService, decoder, service

from gateway.rounds.round import Round
from shared.sampling_params import SamplingParams

PROMPT = list(range(40, 90))
PARAMS = SamplingParams(temperature=1.0, seed=11)
MAX_TOKENS = 200


def tokens(rounds: list[Round]) -> list[int]:
    """Return what all rounds committed."""
    return [token_id for done in rounds for token_id in done.token_ids]


async def test_draft_lost_and_back(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A draft killed mid-answer: decoding goes on plainly. Back on its port: speculation resumes. Same tokens."""
    target = start("target_service", model=toy[0], dtype="bfloat16").address
    async with decoder(target, None) as plain:
        expected = tokens([done async for done in plain.decode(PROMPT, PARAMS, MAX_TOKENS, 0)])
    rounds: list[Round] = []
    with ExitStack() as processes:
        draft = processes.enter_context(service("draft_service", tmp_path / "draft.log", model=toy[1]))
        async with decoder(target, draft.address, deadline_seconds=1) as decode:
            async for done in decode.decode(PROMPT, PARAMS, MAX_TOKENS, 4):
                rounds.append(done)
                if len(rounds) == 5:
                    draft.kill()
                if len(rounds) == 15:
                    again = service("draft_service", tmp_path / "again.log", model=toy[1], address=draft.address)
                    await asyncio.to_thread(processes.enter_context, again)
                    async with asyncio.timeout(30):
                        while not decode._draft_client.info:
                            await asyncio.sleep(0.05)
    drafted = [done.num_drafted > 0 for done in rounds]
    assert all(drafted[:5])
    assert not any(drafted[6:15])
    assert sum(drafted[15:]) > 3
    assert tokens(rounds) == expected


async def test_stalled_draft(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A draft that hangs costs one deadline, not one per round; once it responds, it is used again. Same tokens."""
    target = start("target_service", model=toy[0], dtype="bfloat16").address
    with service("draft_service", tmp_path / "draft.log", model=toy[1]) as draft:
        async with decoder(target, draft.address, deadline_seconds=0.5) as decode:
            expected = tokens([done async for done in decode.decode(PROMPT, PARAMS, MAX_TOKENS, 0)])
            rounds: list[Round] = []
            async for done in decode.decode(PROMPT, PARAMS, MAX_TOKENS, 4):
                rounds.append(done)
                if len(rounds) == 5:
                    draft.send(signal.SIGSTOP)
                if len(rounds) == 20:
                    draft.send(signal.SIGCONT)
                    await asyncio.sleep(0.3)
    drafted = [done.num_drafted > 0 for done in rounds]
    assert not any(drafted[7:20])
    assert sum(drafted[21:]) > 3
    assert 1 <= sum(done.time.seconds > 0.4 for done in rounds[5:20]) <= 3
    assert tokens(rounds) == expected


async def test_a_frozen_draft_costs_what_is_long_for_it(
    start: StartService, toy: tuple[Path, Path], tmp_path: Path
) -> None:
    """Once enough proposals were measured, the deadline is a multiple of what they took, and not the longest."""
    target = start("target_service", model=toy[0], dtype="bfloat16").address
    with service("draft_service", tmp_path / "draft.log", model=toy[1]) as draft:
        async with decoder(target, draft.address, deadline_seconds=20) as decode:
            rounds: list[Round] = []
            async for done in decode.decode(PROMPT[:20], PARAMS, MAX_TOKENS, 4):
                rounds.append(done)
                if len(rounds) == 20:
                    draft.send(signal.SIGSTOP)
    assert 3.9 < max(done.time.seconds for done in rounds[20:]) < 15
    assert sum(done.time.seconds > 3.9 for done in rounds) == 1


@pytest.mark.parametrize("k", [0, 4])
async def test_slots_free_after_disconnect(start: StartService, toy: tuple[Path, Path], k: int) -> None:
    """When a client vanishes mid-answer, the next one gets both services' only slot within a second."""
    target = start("target_service", model=toy[0], num_slots=1, slot_wait_seconds=1, dtype="bfloat16").address
    draft = start("draft_service", model=toy[1], num_slots=1, slot_wait_seconds=1, dtype="bfloat16").address
    async with decoder(target, draft) as decode:
        for _ in range(3):
            rounds = decode.decode(PROMPT, PARAMS, MAX_TOKENS, k)
            await anext(rounds)
            await rounds.aclose()
            following = decode.decode(PROMPT[:20], PARAMS, 8, k)
            drafted = sum([done.num_drafted async for done in following])
            assert (drafted > 0) == (k > 0)
