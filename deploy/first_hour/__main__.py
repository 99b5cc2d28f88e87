"""`deploy/benchmarks/trn2/first-hour.sh`: what an hour of a Trainium2 can tell, resumed where it was cut off."""

import json
import os
import signal
import sys
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from benchmarks.machine import ROOT
from deploy.first_hour.plan import Plan
from deploy.first_hour.report import report
from deploy.first_hour.services import Services
from deploy.first_hour.step import Result, Step, write
from deploy.first_hour.steps import before_serving, compiling, environment, serving

FOLDER = ROOT / "deploy" / "benchmarks" / "trn2"
console = Console(stderr=True)


class Hour:
    """The steps, and the folder of their results. A step that has one is not run again, held or not."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Go on in the folder. Raises SystemExit if it has results of another plan."""
        self.plan, self.folder = plan, folder
        folder.mkdir(parents=True, exist_ok=True)
        kept, planned = folder / "plan.json", json.dumps(plan.document(), indent=1)
        if kept.exists() and kept.read_text("utf-8") != planned:
            sys.exit(f"{folder}: results of another plan; name another folder by --results")
        write(kept, planned)
        self.results: dict[str, Result] = {}
        for step in self.steps("http://"):
            if result := Result.load(folder, step.name):
                self.results[step.name] = result

    @property
    def arranged(self) -> Plan:
        """The plan, as the results so far let the target's ranks be."""
        return self.plan.arranged({name: result.held for name, result in self.results.items()})

    def steps(self, url: str) -> list[Step]:
        """Return all of them, with a gateway at this address."""
        stages = [*before_serving(self.plan), compiling(self.arranged)]
        return [*(step for stage in stages for step in stage), *serving(self.arranged, url)]

    def spend(self) -> None:
        """Run the steps that have no result yet."""
        self.tell()
        env = os.environ | environment(self.plan)
        for stage in before_serving(self.plan):
            self.run(stage, env)
        self.run(compiling(self.arranged), env)
        env |= environment(self.arranged)
        with Services(self.arranged, self.folder / "services.log", env) as services:
            for step in serving(self.arranged, services.url):
                self.run([step], env, services)

    def run(self, stage: list[Step], env: dict[str, str], services: Services | None = None) -> None:
        """Run these at once, where they have no result yet, and write what comes of each as soon as it has ended."""

        def one(step: Step) -> None:
            console.print(f"{step.name}: {step.title}", markup=False)
            problem = services.problem() if services else ""
            result = step.result(problem) if problem else step.run(self.folder, env)
            result.save(self.folder)
            console.print(f"{step.name}: {'held' if result.held else 'DID NOT HOLD'}, {result.seconds} s", markup=False)
            self.results[step.name] = result

        waiting = [step for step in stage if step.name not in self.results]
        with ThreadPoolExecutor(max(1, len(waiting))) as pool:
            list(pool.map(one, waiting))
        self.tell()

    def tell(self) -> None:
        """Write the report."""
        write(self.folder / "report.md", report(self.plan, self.arranged, self.steps("URL"), self.results))


def main() -> None:
    """Spend the hour; exit with 1 unless every step held."""
    flags = ArgumentParser(prog="first-hour.sh", description=__doc__)
    flags.add_argument("--plan", type=Path, default=FOLDER / "first-hour.toml", help="what to try, a .toml file")
    flags.add_argument("--rehearsal", action="store_true", help="the toy pair on the CPU: rehearsal.toml")
    flags.add_argument("--results", type=Path, help="the folder of results; build/first-hour/NAME-OF-PLAN if not given")
    flags.add_argument("--retry", action="store_true", help="run again what did not hold")
    args = flags.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    path = FOLDER / "rehearsal.toml" if args.rehearsal else args.plan
    folder = args.results or ROOT / "build" / "first-hour" / path.stem
    hour = Hour(Plan.load(path), folder)
    if args.retry:
        hour.results = {name: result for name, result in hour.results.items() if result.held}
    hour.spend()
    console.print(f"the report: {folder / 'report.md'}", markup=False)
    sys.exit(not all(result.held for result in hour.results.values()))


if __name__ == "__main__":
    main()
