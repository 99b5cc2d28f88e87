"""`python -m benchmarks MODE`, and `all`, which writes the report: `make bench`."""

import asyncio
import shlex
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks import cost, crowd, load, memory, peers, quality, schemas, single, sweep, trn2, turns
from benchmarks.client import TIMEOUT, Client, models, served
from benchmarks.flags import add_common_flags
from benchmarks.machine import Machine
from benchmarks.report import Report
from benchmarks.section import Section
from scripts.stack import free_port, stack
from scripts.stack import parser as stack_parser
from shared.errors import ModelError

MODES = {
    "single": single,
    "turns": turns,
    "sweep": sweep,
    "schemas": schemas,
    "memory": memory,
    "peers": peers,
    "load": load,
    "cost": cost,
    "trn2": trn2,
    "crowd": crowd,
    "quality": quality,
}
ALONE = {"quality"}  # what needs no gateway
REPORT = [mode for mode in MODES if mode not in {"trn2", "crowd"}]  # the modes of `make bench`
ALL_FLAGS = {  # for modes whose own defaults would make `all` take too long
    "turns": ["--max-tokens=16"],
    "sweep": ["--limit=1"],
    "load": ["--max-tokens=32", "--seconds=60"],
}
WIDTH = 240  # when the output is not a terminal
STACK_FLAGS = list(vars(stack_parser(None).parse_args([])))


def parser() -> ArgumentParser:
    """Return the parser of the command line."""
    flags = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    modes = flags.add_subparsers(dest="mode", required=True)
    for name, mode in MODES.items():
        of_mode = modes.add_parser(name, parents=[stack_parser(None, add_help=False)], help=mode.__doc__)
        add_common_flags(of_mode)
        mode.add_flags(of_mode)
    of_all = modes.add_parser(
        "all", help="every mode, into a report; other --flag=VALUEs go to the modes that know them"
    )
    of_all.add_argument("--report", type=Path, default=Path("docs/benchmarks.md"))
    of_all.add_argument("--modes", nargs="+", choices=MODES, default=REPORT)
    of_all.add_argument("--dollars-per-hour", help="price of this machine; without it nothing is said of cost")
    of_all.add_argument("--json", action="store_true", help="print the report as JSON, too")
    return flags


def commands(args: Namespace, rest: Sequence[str]) -> list[list[str]]:
    """Return the command line of each mode that `all` runs."""
    own = {"sweep": [f"--plot={args.report.with_name('benchmarks-sweep.png')}"]}
    if args.dollars_per_hour:
        own["cost"] = [f"--dollars-per-hour={args.dollars_per_hour}"]
    modes = [mode for mode in args.modes if mode != "cost" or args.dollars_per_hour]
    return [[mode, *ALL_FLAGS.get(mode, []), *own.get(mode, []), *rest] for mode in modes]


async def measure(url: str, args: Namespace) -> Section:
    """Run a mode, against the gateway if it needs one."""
    if args.mode in ALONE:
        alone: Section = await MODES[args.mode].run(args)
        return alone
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits) as http:
        client = Client(http, (await models(http))[0], args.max_tokens, args.temperature, args.seed)
        section: Section = await MODES[args.mode].run(client, args)
        section.notes.insert(0, f"Target: {await served(http)}.")
        return section


def run(url: str, args: Namespace) -> Section:
    """Run a mode. An unexpected error becomes its section's problem; the other modes go on."""
    try:
        section = asyncio.run(measure(url, args))
    except ModelError as error:
        section = Section(args.mode, problems=[str(error)])
    except Exception as error:  # noqa: BLE001 - shown, and in the exit code
        traceback.print_exc()
        section = Section(args.mode, problems=[f"the mode ended with {type(error).__name__}: {error}"])
    section.command = args.command
    return section


def run_each(each: Sequence[Namespace]) -> Iterator[Section]:
    """Run the modes; consecutive ones that want the same services share them."""

    def wanted(args: Namespace) -> list[object]:
        return [args.mode in ALONE, args.gateway, *(getattr(args, name) for name in STACK_FLAGS)]

    for (alone, *_), alike in groupby(each, key=wanted):
        group = list(alike)
        with ExitStack() as running:
            try:
                ports = free_port(), free_port(), free_port()
                url = (
                    ""
                    if alone
                    else group[0].gateway or running.enter_context(stack(group[0], *ports, log_level="ERROR"))
                )
            except SystemExit as error:
                yield from (Section(args.mode, args.command, problems=[str(error)]) for args in group)
                continue
            for args in group:
                yield run(url, args)


def main() -> None:
    """Measure, show the report, and exit with 1 if anything went wrong."""
    flags = parser()
    args, rest = flags.parse_known_args()
    each, strange = [], set(rest)
    for argv in commands(args, rest) if args.mode == "all" else [sys.argv[1:]]:
        of_mode, unknown = flags.parse_known_args(argv)
        known = [flag for flag in argv if flag not in unknown]
        of_mode.command = shlex.join(["python", "-m", "benchmarks", *known])
        each.append(of_mode)
        strange &= set(unknown)
    if strange:
        flags.error(f"no mode knows {shlex.join(sorted(strange))}")
    machine = Machine.here()
    report = Report(machine, list(run_each(each)))
    if args.json:
        sys.stdout.write(f"{report.json()}\n")
    else:
        report.show(Console(width=None if sys.stdout.isatty() else WIDTH))
    if args.mode == "all":
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(report.markdown(args.report.parent), "utf-8")
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
