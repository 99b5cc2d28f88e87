"""Flags of the modes."""

from argparse import ArgumentParser
from pathlib import Path

from benchmarks.prompts import OWN


def numbers(text: str) -> list[int]:
    """Read `1,2,8` or `0-12`. Raises ValueError."""
    parts = (part.partition("-") for part in text.split(","))
    return [number for low, _, high in parts for number in range(int(low), int(high or low) + 1)]


def add_common_flags(flags: ArgumentParser) -> None:
    """Add the flags that all modes have."""
    flags.add_argument("--gateway", help="URL of a gateway that runs already; else the services are started")
    flags.add_argument("--prompts", type=Path, default=OWN, help="JSON lines with id, kind and prompt")
    flags.add_argument("--limit", type=int, help="so many prompts of each kind")
    flags.add_argument("--max-tokens", type=int, default=64, help="of each answer")
    flags.add_argument("--temperature", type=float, default=0.0)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--json", action="store_true", help="print the report as JSON")
    flags.set_defaults(num_slots=8, max_length=4096)  # whatever memory is left, and as long as the other engines have
