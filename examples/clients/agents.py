"""How agents are run: in a folder and a home of their own, from which nothing but this machine is reached."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic

MAX_SECONDS = 900
NUM_TOKENS = 400
"""What an agent may ask of a reply, where it can be told."""
TASK = "Read add.py and say in one sentence what it does."
BUILD = Path(os.environ["CLIENT_FOLDER"])
"""Where the agent is installed."""
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there, for all that is not on this machine."""
HOME = Path(mkdtemp(prefix="outrider-agent-"))
WORK = HOME / "work"


def program(name: str) -> str:
    """Return the path of an installed command, of npm or of pip."""
    found = shutil.which(name, path=f"{BUILD / 'node_modules' / '.bin'}:{BUILD / 'venv' / 'bin'}")
    if not found:
        sys.exit(f"{name} is not installed in {BUILD}")
    return found


def run(name: str, *words: str, **environment: str) -> str:
    """Run an agent in a folder with the file add.py. Returns its exit code, which must be 0, its time and what it said.

    Raises AssertionError for another exit code, for no reply and after 15 minutes.
    """
    WORK.mkdir(exist_ok=True)
    (WORK / "add.py").write_text("def add(a, b):\n    return a - b\n", "utf-8")
    outside = {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost"}
    places = {"HOME": HOME, "XDG_CONFIG_HOME": HOME / "config", "XDG_DATA_HOME": HOME / "data", "XDG_CACHE_HOME": HOME}
    own = {name: str(folder) for name, folder in places.items()} | outside | environment
    begun = monotonic()
    process = subprocess.Popen(  # noqa: S603 - ours
        [program(name), *words],
        cwd=WORK,
        env={"PATH": os.environ["PATH"], "TERM": "dumb", "LANG": "C.UTF-8"} | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # agents start processes of their own, which end with them
    )
    try:
        said, complaints = process.communicate(timeout=MAX_SECONDS)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"no end after {MAX_SECONDS} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    ended = f"exit code {process.returncode} after {monotonic() - begun:.0f} s"
    assert not process.returncode, f"{ended}: {complaints[-500:]}"
    assert said.strip(), f"{ended}, and no reply"
    return f"{ended}: {' '.join(said.split())[-60:]}"
