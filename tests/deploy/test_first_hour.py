"""An hour of a device, rehearsed on a CPU: cut off three times, it ends with the whole report."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from services import ROOT

from deploy.first_hour.plan import Plan
from deploy.first_hour.report import report
from deploy.first_hour.step import Result, Step
from deploy.first_hour.steps import before_serving, compiling, serving

PLANS = ROOT / "deploy" / "benchmarks" / "trn2"
SMALL = """
title = "a test"
target = "toy"
draft = "toy"
dtype = "float32"
num_slots = 2
ranks = 1
target_cores = ""
draft_cores = ""
settings = {compile_backend = "eager", max_length = 256, max_draft_tokens = 2, smallest_bucket = 256}
minutes = {doctor = 5, reload = 5, compile = 5, start = 5, texts = 5, benchmark = 5}
texts = {limit = 1, max_tokens = 4}
workloads = {blog = {limit = 1, prompt_tokens = 8, max_tokens = 4, concurrency = 1, requests = 1, ks = "2"}}
"""


def test_killed_three_times(tmp_path: Path) -> None:
    """At random moments, with all that it started. What had come to an end is not run again."""
    (tmp_path / "plan.toml").write_text(SMALL)
    folder, moments = tmp_path / "results", [random.uniform(1, 12) for _ in range(3)]
    command = [sys.executable, "-m", "deploy.first_hour", f"--plan={tmp_path / 'plan.toml'}", f"--results={folder}"]
    kept: dict[Path, bytes] = {}
    for seconds in [*moments, 600]:
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
            try:
                _, told = process.communicate(timeout=seconds)
                break
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        assert {path: path.read_bytes() for path in kept} == kept, moments
        kept = {path: path.read_bytes() for path in folder.glob("*.json")}
    assert process.returncode == 1, (moments, told)  # as there is no device
    assert {path: path.read_bytes() for path in kept} == kept, moments
    results = {path.stem: json.loads(path.read_bytes()) for path in folder.glob("*.json") if path.stem != "plan"}
    missed = {name: result["said"] for name, result in results.items() if not result["held"]}
    assert missed.keys() == {"doctor"}, missed
    assert "install aws-neuronx-dkms" in missed["doctor"]
    text = (folder / "report.md").read_text()
    assert "says nothing about Trainium" in text
    assert "8 steps: 7 held, 1 did not hold, 0 not reached" in text
    assert "published: speculative" in text


@pytest.mark.parametrize("name", ["first-hour", "rehearsal"])
def test_plans(name: str) -> None:
    """Each has what every step needs, and says whether it is a rehearsal."""
    plan = Plan.load(PLANS / f"{name}.toml")
    steps = [*(step for stage in before_serving(plan) for step in stage), *compiling(plan), *serving(plan, "http://u")]
    assert len({step.name for step in steps}) == len(steps) == 10
    told = report(plan, plan, steps, {})
    assert f"{len(steps)} steps: 0 held, 0 did not hold, {len(steps)} not reached" in told
    assert ("says nothing about Trainium" in told) == plan.rehearsal == (name == "rehearsal")


def test_ranks_do_what_was_seen_to_hold() -> None:
    """Another collective where gathering hangs, and one core where that hangs too."""
    plan = Plan.load(PLANS / "first-hour.toml")
    assert plan.arranged({}) == plan
    summed = plan.arranged({"reload-gather": False})
    assert (summed.ranks, summed.collective) == (2, "all_reduce")
    alone = plan.arranged({"reload-gather": False, "reload-all_reduce": False})
    assert (alone.ranks, alone.target_cores) == (1, "0")


def test_a_step_that_takes_too_long(tmp_path: Path) -> None:
    """Is ended with what it started, and told."""
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    result = Step("slow", "never ends", [sys.executable, "-c", script], 0.5).run(tmp_path, os.environ)
    assert not result.held
    assert result.said.startswith("no end after")
    result.save(tmp_path)
    assert Result.load(tmp_path, "slow") == result
    assert Result.load(tmp_path, "other") is None
