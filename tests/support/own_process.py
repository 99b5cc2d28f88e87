"""A service as an ordinary process with its own environment: on all cores, unlike the services of other tests."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def read_events(log: Path, name: str) -> list[dict[str, object]]:
    """Return the events with this name in a service's log."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    return [event for event in map(json.loads, lines) if event["event"] == name]


@dataclass(frozen=True)
class OwnProcess:
    """A service that runs."""

    pid: int
    address: str
    log: Path

    def thread_seconds(self) -> list[float]:
        """Return how long each of its threads has computed, the busiest first; empty if there is no /proc."""
        ticks = []
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            fields = stat.read_text().rpartition(")")[2].split()
            ticks.append(int(fields[11]) + int(fields[12]))  # user and system time
        return sorted((count / os.sysconf("SC_CLK_TCK") for count in ticks), reverse=True)


@contextmanager
def own_process(
    module: str, log: Path, env: Mapping[str, str] | None = None, seconds: float = 600, **settings: object
) -> Iterator[OwnProcess]:
    """Run `python -m module` with these settings; the block begins when it serves, and it stops at the block's end.

    env: variables added to our environment; torch chooses the number of threads unless it sets OMP_NUM_THREADS.
    seconds: how long it may take to start serving, or the test fails.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in ({"address": "127.0.0.1:0"} | settings).items()]
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", module, *flags]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=inherited | dict(env or {}), stderr=sink)
    try:
        deadline = time.monotonic() + seconds
        while not (serving := read_events(log, "serving")):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{module} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield OwnProcess(process.pid, f"127.0.0.1:{serving[0]['port']}", log)
    finally:
        process.kill()
        process.wait()
