"""An hour of a device, rehearsed on a CPU: cut off three times, it ends with the whole report."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from services import ROOT

from deploy.first_hour import hour as hour_module
from deploy.first_hour.hour import Hour
from deploy.first_hour.plan import Plan
from deploy.first_hour.processes import end_all, marked
from deploy.first_hour.report import report
from deploy.first_hour.services import Services
from deploy.first_hour.step import Result, Run, Step
from deploy.first_hour.steps import before_serving, compiling, serving

PLANS = ROOT / "deploy" / "benchmarks" / "trn2"
ENDING = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
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


@contextmanager
def hour(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the script itself, with results in this folder; it ends with the block, and its steps with the test."""
    (folder / "plan.toml").write_text(SMALL)
    command = [str(PLANS / "first-hour.sh"), f"--plan={folder / 'plan.toml'}", f"--results={folder / 'results'}"]
    env = os.environ | {"PYTHON": sys.executable}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return an empty one, in which nothing runs after the test."""
    yield tmp_path
    end_all(tmp_path / "results")


def results(folder: Path) -> dict[Path, bytes]:
    """Return what each step that ended has left."""
    return {path: path.read_bytes() for path in (folder / "results").glob("*.json") if path.stem != "plan"}


@pytest.mark.timeout(600)
def test_killed_three_times(folder: Path) -> None:
    """At random moments. What had come to an end is not run again, and what it left running is ended."""
    moments = [random.uniform(1, 12) for _ in range(3)]
    kept: dict[Path, bytes] = {}
    for seconds in [*moments, 500]:
        with hour(folder) as process, suppress(subprocess.TimeoutExpired):
            _, told = process.communicate(timeout=seconds)
        assert results(folder).items() >= kept.items(), moments
        kept = results(folder)
    assert process.returncode == 1, (moments, told)  # as there is no device
    found = {path.stem: json.loads(text) for path, text in kept.items()}
    missed = {name: result["said"] for name, result in found.items() if not result["held"]}
    assert missed.keys() == {"doctor"}, missed
    assert "install aws-neuronx-dkms" in missed["doctor"]
    text = (folder / "results" / "report.md").read_text()
    assert "says nothing about Trainium" in text
    assert "8 steps: 7 held, 1 did not hold, 0 interrupted, 0 not reached" in text
    assert "published: speculative" in text


@pytest.fixture
def heard() -> Iterator[None]:
    """Have processes heed the signals that end them, though whoever started the tests, as nohup does, ignores some."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
def test_interrupted(folder: Path) -> None:
    """The step that was cut off has no result, and none of its processes; run again, it is the first one to run."""
    for number in ENDING:
        with hour(folder) as process:
            assert process.stderr
            assert process.stderr.readline().startswith("doctor: ")
            while not list(marked(folder / "results")):
                time.sleep(0.01)
            process.send_signal(number)
            assert process.wait(60) == 130
        assert not results(folder)
        assert not list(marked(folder / "results"))
        told = (folder / "results" / "report.md").read_text()
        assert "8 steps: 0 held, 0 did not hold, 1 interrupted, 7 not reached" in told


class Instant(Run):
    """A step that takes no time."""

    def __init__(self, step: Step, *_: object) -> None:
        """Start nothing."""
        self.step = step

    def result(self) -> Result:
        """Hold, unless it is one of those that do not."""
        RAN.append(self.step.name)
        return self.step.result("", held=self.step.name not in MISSED)


RAN: list[str] = []
MISSED: set[str] = set()


def test_retry_with_another_collective(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once gathering holds, what was found with the other collective does not count; all else does."""

    def spend(*missed: str, retry: bool = False) -> list[str]:
        RAN.clear()
        MISSED.clear()
        MISSED.update(missed)
        with closing(Hour(Plan.load(PLANS / "rehearsal.toml"), folder)) as spent:
            if retry:
                spent.forget_failures()
                assert not (folder / "reload-gather.json").exists()  # it may be cut off
            assert spent.spend() == (not missed)
        return list(RAN)

    monkeypatch.setattr(hour_module, "Run", Instant)
    monkeypatch.setattr(Services, "problem", lambda _: "")
    monkeypatch.setattr(Services, "run", True)
    first, gather, _, *arranged = spend("reload-gather")
    assert (first, gather, len(arranged)) == ("doctor", "reload-gather", 7)
    assert spend("reload-gather", retry=True) == ["reload-gather"]
    assert "2 ranks, all_reduce" in (folder / "report.md").read_text()
    assert spend(retry=True) == ["reload-gather", *arranged]
    assert "2 ranks, gather" in (folder / "report.md").read_text()
    assert spend() == []


def test_one_at_a_time(folder: Path) -> None:
    """A folder is of one plan, and one process is at it."""
    plan = Plan.load(PLANS / "rehearsal.toml")
    with closing(Hour(plan, folder)), pytest.raises(SystemExit, match="another process"):
        Hour(plan, folder)
    with pytest.raises(SystemExit, match="another plan"):
        Hour(replace(plan, num_slots=9), folder)


@pytest.mark.parametrize("name", ["first-hour", "rehearsal"])
def test_plans(name: str) -> None:
    """Each has what every step needs, and says whether it is a rehearsal."""
    plan = Plan.load(PLANS / f"{name}.toml")
    steps = [*(step for stage in before_serving(plan) for step in stage), *compiling(plan), *serving(plan, "http://u")]
    assert len({step.name for step in steps}) == len(steps) == 10
    told = report(plan, plan, steps, {})
    assert f"{len(steps)} steps: 0 held, 0 did not hold, 0 interrupted, {len(steps)} not reached" in told
    assert ("says nothing about Trainium" in told) == plan.rehearsal == (name == "rehearsal")


def test_ranks_do_what_was_seen_to_hold() -> None:
    """Another collective where gathering hangs, and one core where that hangs too."""
    plan = Plan.load(PLANS / "first-hour.toml")
    assert plan.arranged({}) == plan
    summed = plan.arranged({"reload-gather": False})
    assert (summed.ranks, summed.collective) == (2, "all_reduce")
    alone = plan.arranged({"reload-gather": False, "reload-all_reduce": False})
    assert (alone.ranks, alone.target_cores) == (1, "0")


def test_a_step_that_takes_too_long(folder: Path) -> None:
    """Is ended with what it started, and told."""
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
    plan = Plan.load(PLANS / "rehearsal.toml")
    run = Run(Step(plan, "slow", "never ends", [sys.executable, "-c", script], 0.5), folder, os.environ)
    while not (result := run.result()):
        time.sleep(0.1)
    assert not list(marked(folder))
    assert not result.held
    assert result.said.startswith("no end after")
    result.save(folder)
    assert Result.load(folder, "slow") == result
    assert Result.load(folder, "other") is None
