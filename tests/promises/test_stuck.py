"""A target whose device never returns, or runs nothing any more, ends itself; its sessions go on at another replica."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from services import CONNECTING_SECONDS, StartService, after, decoder, service

from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.sampling_params import SamplingParams

PROMPT = list(range(40, 70))
MAX_TOKENS = 48


def for_ever() -> None:
    """Never return."""
    time.sleep(3600)


def broken() -> NoReturn:
    """Raise what ONNX Runtime or a driver might."""
    raise OSError("device lost")


def once_told(fault: Callable[[], None]) -> None:
    """From SIGUSR1 on, run no pass."""
    told = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: told.set())
    extend = CpuRunner.extend
    CpuRunner.extend = lambda *args: fault() if told.is_set() else extend(*args)  # type: ignore[method-assign,assignment]


def plant_stuck() -> None:
    """Plant a device that never returns."""
    once_told(for_ever)


def plant_broken() -> None:
    """Plant one that runs nothing any more."""
    once_told(broken)


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (plant_stuck, "a pass of 1 rows of 1 sessions has not returned for "),
        (plant_broken, "device lost"),
    ],
)
async def test_the_process_ends(
    start: StartService, toy: tuple[Path, Path], tmp_path: Path, plant: Callable[[], None], reason: str
) -> None:
    """With code 1 and a line in its log; a session of the gateway has the tokens that one replica gives."""
    stays = start("target_service", model=toy[0], dtype="float32")
    params = SamplingParams(seed=1)
    async with decoder(stays.address, None) as alone:
        expected = [i async for done in alone.decode(PROMPT, params, MAX_TOKENS, 0) for i in done.token_ids]
    settings = {"model": toy[0], "dtype": "float32", "watchdog_seconds": 2}
    with service("target_service", tmp_path / "target.log", plant=plant, **settings) as ends:
        async with decoder(f"ipv4:{ends.address},{stays.address}", None) as decode:
            await asyncio.sleep(CONNECTING_SECONDS)
            progress = after(8, lambda: ends.send(signal.SIGUSR1))

            async def run() -> list[int]:
                token_ids: list[int] = []
                async for done in decode.decode(PROMPT, params, MAX_TOKENS, 0):
                    token_ids += done.token_ids
                    progress()
                return token_ids

            assert list(await asyncio.gather(run(), run())) == [expected] * 2  # of which one goes to either replica
        assert await asyncio.to_thread(ends.wait, 20) == 1
        [event] = ends.events("the worker failed: the process ends")
        assert str(event["reason"]).startswith(reason)
