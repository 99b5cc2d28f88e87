"""Commands in sessions of their own, and an end to all that they start."""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from benchmarks.machine import ROOT

MARK = "FIRST_HOUR"  # inherited by whatever a command starts, in groups of its own as torchrun's ranks, or orphaned


def start(
    command: Sequence[str], mark: Path, env: Mapping[str, str], out: IO[bytes], err: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a command where no Ctrl-C of a terminal reaches it; `end_all` finds it by the mark, an absolute path."""
    marked = {**env, MARK: str(mark)}
    return subprocess.Popen(command, cwd=ROOT, env=marked, stdout=out, stderr=err, start_new_session=True)  # noqa: S603 - our own


def end_all(mark: Path, seconds: float = 10) -> None:
    """End whatever runs with this mark or one right below it. What a driver holds may outlive `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := list(marked(mark))) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)


def marked(mark: Path) -> Iterator[psutil.Process]:
    """Yield what runs with this mark or one right below it."""
    for process in psutil.process_iter(["environ"]):
        own = (process.info["environ"] or {}).get(MARK)
        if own and mark in (Path(own), Path(own).parent) and process.pid != os.getpid():
            yield process
