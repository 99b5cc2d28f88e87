"""A build of torch without oneDNN's and FBGEMM's operators, as on a Mac: everything starts, and is lossless."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the project with an interpreter that lacks the operators."""
    path = os.pathsep.join([str(Path(__file__).parent / "without_ops"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=150)


@pytest.mark.parametrize("quant", ["auto", "none"])
def test_the_demo_runs(quant: str) -> None:
    """Three services on the toy pair, in bfloat16: the same text with speculation as without."""
    done = run("scripts.demo", "--pair=toy", f"--draft-quant={quant}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "yes" in done.stdout


def test_what_is_asked_for_and_missing_is_named() -> None:
    """A kernel, or a way to round, that this build does not have ends the start with one sentence."""
    for service, setting, said in (
        ("target_service", "--kernel=onednn-bfloat16", "'mkldnn' object has no attribute"),
        ("target_service", "--kernel=fast", "kernel fast: for bfloat16 there are"),
        ("draft_service", "--quant=int8", "no products with weights of 8 bits"),
    ):
        done = run(service, "--model=toy", setting, "--address=127.0.0.1:0")
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
