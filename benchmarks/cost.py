"""What a million output tokens cost on a machine of a given price."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from benchmarks import load
from benchmarks.client import Client
from benchmarks.flags import numbers
from benchmarks.section import Section, Value
from benchmarks.single import BOTH


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--dollars-per-hour", type=float, required=True, help="of the machine or machines that serve")
    flags.add_argument("--concurrency", type=numbers, default="1,8", help="requests at once")
    flags.add_argument("--requests", type=int, default=3, help="that each of them sends, one after the other")
    flags.add_argument("--seconds", type=float, default=120, help="no load sends requests for longer")
    flags.set_defaults(shares=(), arrivals=0, num_slots=32)


async def run(client: Client, args: Namespace) -> Section:
    """Measure the throughput, and divide the price by it."""
    section = Section("Cost")
    levels = await load.measure(client, args)
    loads = dict.fromkeys(at for at, _ in levels)
    section.problems += load.failures(levels)
    section.table("Dollars for a million output tokens", [_row(levels, at, args.dollars_per_hour) for at in loads])
    section.notes.append(
        f"At {args.dollars_per_hour:g} dollars an hour, the machine busy with these requests and nothing else. Prompts "
        "are not counted but their prefill is paid for."
    )
    return section


def dollars_per_million(dollars_per_hour: float, tokens_per_second: float) -> float | None:
    """Return the price of a million tokens; None if there are none."""
    return dollars_per_hour / (tokens_per_second * 3600) * 1e6 if tokens_per_second else None


def _row(levels: load.Levels, at: str, dollars_per_hour: float) -> Mapping[str, Value]:
    speeds = {name: levels[at, name].tokens_per_second for name in BOTH}
    return {
        "load": at,
        **{f"{name}, tokens/s": speed for name, speed in speeds.items()},
        **{f"{name}, dollars": dollars_per_million(dollars_per_hour, speed) for name, speed in speeds.items()},
    }
