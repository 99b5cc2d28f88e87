"""A model is loaded, measured and run in one thread, though the event loop has another."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from mix import trial_settings
from services import ROOT

from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.loading.load_engine import load_engine
from shared.model.runner import Rows, Segment
from shared.sampling_params import SamplingParams


async def test_all_passes_are_in_one_thread(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes in two threads has two teams of OpenMP, and a pass then takes 1.2 times as long."""
    threads: list[str] = []
    extend, make = CpuRunner.extend, CpuRunner.__init__

    def extended(runner: CpuRunner, segments: Sequence[Segment]) -> list[Rows]:
        threads.append(threading.current_thread().name)
        return extend(runner, segments)

    def made(*args: object, **kwargs: object) -> None:
        threads.append(threading.current_thread().name)
        make(*args, **kwargs)  # type: ignore[arg-type]  # whatever it takes

    monkeypatch.setattr(CpuRunner, "extend", extended)
    monkeypatch.setattr(CpuRunner, "__init__", made)
    engine = await load_engine(toy[0], trial_settings(toy[0], device="cpu"))
    counts = [len(threads)]
    await engine.measure()
    counts.append(len(threads))
    running = asyncio.create_task(engine.run())
    async with engine.session([1, 2, 3], SamplingParams()) as session:
        await engine.verify(session, [4])
    running.cancel()
    counts.append(len(threads))
    assert 1 < counts[0] < counts[1] < counts[2]
    assert len(set(threads)) == 1
    assert threads[0] != threading.current_thread().name


IMPORTS = """
import os
import draft_service.__main__, shared.model.loading.load_engine, target_service.__main__
print(len(os.listdir("/proc/self/task")))
"""


def test_no_thread_computes_at_import() -> None:
    """What torch does in parallel there gives the main thread a team: one `triu` cost a pass a third of its speed."""
    env = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1"]
