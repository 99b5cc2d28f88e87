"""A request that ends its replica ends two at most, and those beside it go on with the same tokens."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from services import CONNECTING_SECONDS, StartService, decoder, service

from gateway.clients.errors import TargetUnavailableError
from gateway.rounds.decoder import Decoder
from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.runner import Rows, Segment
from shared.sampling_params import SamplingParams

POISON = [77, 177, 277, 377]
MAX_TOKENS = 60
NUM_INNOCENT = 9  # more than one replica has slots for


def plant() -> None:
    """Let a pass with the poison in it end the process."""
    extend = CpuRunner.extend

    def dies(self: Any, segments: Sequence[Segment]) -> list[Rows]:
        if any(set(POISON) <= set(segment.token_ids) for segment in segments):
            os._exit(3)
        return extend(self, segments)

    CpuRunner.extend = dies  # type: ignore[method-assign]


async def run(decode: Decoder, number: int, begun: asyncio.Semaphore | None = None) -> list[int]:
    """Decode an innocent session."""
    token_ids: list[int] = []
    async for done in decode.decode(range(40 + number, 70 + number), SamplingParams(seed=number), MAX_TOKENS, 0):
        token_ids += done.token_ids
        if begun and len(token_ids) == 5:
            begun.release()
    return token_ids


@pytest.mark.timeout(120)
async def test_two_replicas_at_most(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> None:
    """With three replicas, one is left, and every innocent stream ends there with the tokens that it has alone."""
    async with decoder(start("target_service", model=toy[0], dtype="float32").address, None) as alone:
        expected = [await run(alone, number) for number in range(NUM_INNOCENT)]
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(
                service("target_service", tmp_path / f"{name}.log", plant=plant, model=toy[0], dtype="float32")
            )
            for name in "abc"
        ]
        async with decoder(f"ipv4:{','.join(replica.address for replica in replicas)}", None) as decode:
            await asyncio.sleep(CONNECTING_SECONDS)
            begun = asyncio.Semaphore(0)
            innocent = [asyncio.create_task(run(decode, number, begun)) for number in range(NUM_INNOCENT)]
            for _ in innocent:
                await begun.acquire()
            with pytest.raises(TargetUnavailableError):
                [done async for done in decode.decode([*POISON, 5, 6], SamplingParams(), MAX_TOKENS, 0)]
            assert await asyncio.gather(*innocent) == expected
            assert sorted(replica.wait(2) or 0 for replica in replicas) == [0, 3, 3]
            assert await run(decode, 0) == expected[0]
