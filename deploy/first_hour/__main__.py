"""`deploy/benchmarks/trn2/first-hour.sh`: what an hour of a Trainium2 can tell, resumed where it was cut off."""

import signal
import sys
from argparse import ArgumentParser
from contextlib import closing
from pathlib import Path

from benchmarks.machine import ROOT
from deploy.first_hour.hour import Hour, console
from deploy.first_hour.plan import Plan

FOLDER = ROOT / "deploy" / "benchmarks" / "trn2"


def main() -> None:
    """Spend the hour; exit with 1 unless every step held, and with 130 if it was interrupted."""
    flags = ArgumentParser(prog="first-hour.sh", description=__doc__)
    flags.add_argument("--plan", type=Path, default=FOLDER / "first-hour.toml", help="what to try, a .toml file")
    flags.add_argument("--rehearsal", action="store_true", help="the toy pair on the CPU: rehearsal.toml")
    flags.add_argument("--results", type=Path, help="the folder of results; build/first-hour/NAME-OF-PLAN if not given")
    flags.add_argument("--retry", action="store_true", help="run again what did not hold")
    args = flags.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    path = FOLDER / "rehearsal.toml" if args.rehearsal else args.plan
    with closing(Hour(Plan.load(path), args.results or ROOT / "build" / "first-hour" / path.stem)) as hour:
        if args.retry:
            hour.forget_failures()
        try:
            held = hour.spend()
        except KeyboardInterrupt:
            console.print("interrupted; run again, it goes on with the step that was cut off", markup=False)
            sys.exit(128 + signal.SIGINT)
        finally:
            console.print(f"the report: {hour.folder / 'report.md'}", markup=False)
    sys.exit(not held)


if __name__ == "__main__":
    main()
