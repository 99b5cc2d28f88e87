"""A build of torch without oneDNN's and FBGEMM's operators, as on a Mac: everything starts, and is lossless."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from services import FORKS, decoder, run_module, service
from test_lossless import CASES, run_all

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the project with an interpreter that lacks the operators."""
    path = os.pathsep.join([str(ROOT / "tests" / "support" / "without_ops"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=150)


@pytest.mark.parametrize("quant", ["auto", "int8"])
def test_the_demo_runs(quant: str) -> None:
    """Three services on the toy pair, in bfloat16 and in int8: the same text with speculation as without."""
    target = "int8" if quant == "int8" else "none"
    done = run("scripts.demo", "--pair=toy", f"--draft-quant={quant}", f"--target-quant={target}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "yes" in done.stdout


def without_ops() -> None:
    """Planted fault: the operators are missing in this process."""
    runpy.run_path(str(ROOT / "tests" / "support" / "without_ops" / "sitecustomize.py"))


async def test_it_is_lossless(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Greedy and sampled, with k from 1 to 8, alone and 8 at once: the tokens of the target alone."""
    settings = {"plant": without_ops, "quant": "none"}
    with (
        service("target_service", tmp_path / "target.log", model=toy[0], **settings) as target,
        service("draft_service", tmp_path / "draft.log", model=toy[1], **settings) as draft,
    ):
        async with decoder(target.address, draft.address) as decode:
            assert decode.target.row_exact
            assert decode.target.kernel == "torch-float32"
            alone = await run_all(decode, CASES[:24], at_once=1, k=0)
            together = await run_all(decode, CASES[:24], at_once=8)
    assert [tokens for tokens, _, _ in together] == [tokens for tokens, _, _ in alone]
    assert sum(accepted for _, _, accepted in together) > 0


def test_what_is_asked_for_and_missing_is_named(tmp_path: Path) -> None:
    """A kernel or a rounding that this build does not have ends the start with one sentence."""
    for setting, said in (
        ("--kernel=onednn-bfloat16", "'mkldnn' object has no attribute"),
        ("--kernel=fast", "kernel fast: for bfloat16 there are"),
    ):
        flags = ["--model=toy", setting, "--address=127.0.0.1:0"]
        process = FORKS.Process(target=run_module, args=(tmp_path / "log", without_ops, "target_service", *flags))
        process.start()
        process.join(60)
        assert process.exitcode == 1
        told = (tmp_path / "log").read_text()
        assert said in told
        assert "Traceback" not in told
