"""What a test worker leaves behind when it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from reaper import MARK, started_by

WORKER = """
import multiprocessing, os, subprocess, sys, time
import reaper

watching = reaper.watch()
multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(600,)).start()
stopped = subprocess.Popen(["sleep", "600"], start_new_session=True)
stopped.send_signal(19)
print(os.environ[reaper.MARK], flush=True)
time.sleep(600)
"""


def test_a_killed_worker_leaves_nothing_running() -> None:
    """Forked services end within seconds, and so do stopped ones in sessions of their own, and the forks' server."""
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        mark = worker.stdout.readline().strip()
        assert mark != os.environ[MARK]
        deadline = time.monotonic() + 30
        while len(started_by(mark)) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(started_by(mark)) == 5
        worker.send_signal(signal.SIGKILL)
    while (left := started_by(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
