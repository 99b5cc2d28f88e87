"""Ends what a test process has started when that process is gone, even by SIGKILL, as nobody else then would."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from uuid import uuid4

import psutil

MARK = "OUTRIDER_STARTED_BY"
"""The variable that tells whose a process is. All descendants have it, in whatever group or session they are."""


def watch() -> subprocess.Popen[bytes]:
    """Mark what this process starts from now on; return what ends it all when this process does, or closes its pipe."""
    os.environ[MARK] = uuid4().hex
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, start_new_session=True)


def started_by(mark: str) -> list[psutil.Process]:
    """Return the processes that bear the mark, but for this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone, or not ours
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                found.append(process)
    return found


def _main() -> None:
    sys.stdin.read()  # until the one that started us is gone: it alone holds the other end
    deadline = time.monotonic() + 30
    while (left := started_by(os.environ[MARK])) and time.monotonic() < deadline:  # one may just be starting another
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)


if __name__ == "__main__":
    _main()
