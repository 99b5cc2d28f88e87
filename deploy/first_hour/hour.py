"""The hour: its steps in order, each run once, and resumed where it was cut off."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from deploy.first_hour.plan import Plan
from deploy.first_hour.processes import end_all
from deploy.first_hour.report import report
from deploy.first_hour.services import Services
from deploy.first_hour.step import Result, Run, Step, write
from deploy.first_hour.steps import before_serving, compiling, environment, serving

console = Console(stderr=True)


class Hour:
    """The steps, and the folder of their results. A step that has one is not run again, held or not."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Go on in the folder. Raises SystemExit if it has results of another plan, or another process is at it."""
        self.plan, self.folder = plan, folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        kept, planned = self.folder / "plan.json", json.dumps(plan.document(), indent=1)
        if kept.exists() and kept.read_text("utf-8") != planned:
            sys.exit(f"{folder}: results of another plan; name another folder by --results")
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            sys.exit(f"{folder}: another process is at it")
        write(kept, planned)
        self._begun: list[Step] = []
        self._results: dict[str, Result] = {}
        for step in self.steps("http://"):
            if result := Result.load(self.folder, step.name):
                self._results[step.name] = result

    def close(self) -> None:
        """Let another process go on in the folder."""
        self._lock.close()

    @property
    def arranged(self) -> Plan:
        """The plan, as the results so far let the target's ranks be."""
        tried = self._kept([step for stage in before_serving(self.plan) for step in stage])
        return self.plan.arranged({name: result.held for name, result in tried.items()})

    def steps(self, url: str) -> list[Step]:
        """Return all of them, with a gateway at this address."""
        stages = [*before_serving(self.plan), compiling(self.arranged)]
        return [*(step for stage in stages for step in stage), *serving(self.arranged, url)]

    def forget_failures(self) -> None:
        """Let what did not hold be run again."""
        for name in [name for name, result in self._results.items() if not result.held]:
            del self._results[name]
            Result.forget(self.folder, name)

    def spend(self) -> bool:
        """Run the steps that have no result yet; return whether all held.

        What KeyboardInterrupt cuts off is ended, with all that it started, and has no result. So is first what an
        hour that was killed left running.
        """
        end_all(self.folder)
        try:
            self._spend()
        finally:
            end_all(self.folder)
            self._tell()
        return all(result.held for result in self._kept(self.steps("URL")).values())

    def _spend(self) -> None:
        self._tell()
        env = os.environ | environment(self.plan)
        for stage in before_serving(self.plan):
            self._run(stage, env)
        self._run(compiling(self.arranged), env)
        env |= environment(self.arranged)
        with Services(self.arranged, self.folder, env) as services:
            for step in serving(self.arranged, services.url):
                self._run([step], env, services)

    def _run(self, stage: Sequence[Step], env: Mapping[str, str], services: Services | None = None) -> None:
        """Run these at once, where they have no result yet, and write what comes of each as soon as it has ended."""
        kept = self._kept(stage)
        self._begun = [step for step in stage if step.name not in kept]
        for step in self._begun:
            console.print(f"{step.name}: {step.title}", markup=False)
        if services and self._begun and (problem := services.problem()):
            for step in list(self._begun):
                self._end(step, step.result(problem))
        runs = [Run(step, self.folder, env) for step in self._begun]
        while runs:
            for run in list(runs):
                if result := run.result():
                    if services and not services.run:
                        result = run.step.result("a service ended meanwhile: services.log", seconds=result.seconds)
                    self._end(run.step, result)
                    runs.remove(run)
            time.sleep(0.1)
        self._tell()

    def _end(self, step: Step, result: Result) -> None:
        result.save(self.folder)
        self._results[step.name] = result
        self._begun.remove(step)
        console.print(f"{step.name}: {'held' if result.held else 'DID NOT HOLD'}, {result.seconds} s", markup=False)

    def _kept(self, steps: Sequence[Step]) -> Mapping[str, Result]:
        """Return the results of these steps by name, without those of another arrangement of the plan."""
        planned = {step.name: step.plan.document() for step in steps}
        return {name: result for name, result in self._results.items() if result.plan == planned.get(name)}

    def _tell(self) -> None:
        """Write the report, in which what has begun, and not ended, is interrupted."""
        steps = self.steps("URL")
        results = self._kept(steps)
        begun = {step.name for step in self._begun} - results.keys()
        write(self.folder / "report.md", report(self.plan, self.arranged, steps, results, begun))
