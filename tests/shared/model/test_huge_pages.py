"""A service's memory is in large pages, where the kernel has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.model.huge_pages import HUGE, VARIABLE

ALLOWED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CODE = """if True:
    import os, sys
    from pathlib import Path
    from shared.model.huge_pages import use_huge_pages
    print(os.getpid(), flush=True)
    use_huge_pages()
    held = bytearray(b"1") * 2**26
    [line] = [line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if "AnonHuge" in line]
    print(os.environ["GLIBC_TUNABLES"], *sys.argv[1:], line.split()[1])
"""


def started(**variables: str) -> list[str]:
    """Return what a process prints that has these variables beside its own."""
    inherited = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-W", "error", "-c", CODE, "one", "--two=3 4"]
    done = subprocess.run(command, env=inherited | variables, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(not ALLOWED.exists() or "[never]" in ALLOWED.read_text(), reason="the kernel gives none")
def test_a_process_starts_itself_anew() -> None:
    """It is the same process with the same arguments, and its memory is in large pages."""
    before, after, said = started()
    assert before == after
    assert said.split()[:-1] == [HUGE, "one", "--two=3", "4"]
    assert int(said.split()[-1]) > 2**16 / 2  # KB, of 64 MB


def test_a_setting_of_the_operators_stays() -> None:
    """Where the variable is set, nothing is started anew."""
    _, said = started(**{VARIABLE: "glibc.malloc.check=0"})
    assert said.split()[0] == "glibc.malloc.check=0"
