"""An agent's second call: what it gains that its first reply is remembered."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any
from uuid import uuid4

from benchmarks.client import PLAIN, SPECULATIVE, Client, speculating, user
from benchmarks.progress import progress
from benchmarks.reply import Reply
from benchmarks.section import Section

CASES = Path(__file__).with_name("memory.json")
WAYS = {"plain": PLAIN, "without the memory": SPECULATIVE, "with it": speculating(memory=True)}


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--repeats", type=int, default=2, help="how often each pair of calls is made")
    flags.set_defaults(num_slots=4, max_tokens=256)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("An agent's second call: with and without a memory of the first")
    cases = json.loads(CASES.read_text("utf-8"))[: args.limit]
    rows = []
    with progress("memory", len(cases) * args.repeats) as advance:
        for case in cases:
            replies: dict[str, list[Reply]] = {way: [] for way in WAYS}
            for _ in range(args.repeats):
                for way, reply in (await _second_calls(client, case)).items():
                    replies[way].append(reply)
                advance()
            errors = [reply.error for of in replies.values() for reply in of if reply.error]
            section.problems += [f"{case['id']}: {error}" for error in errors]
            if not errors:
                rows.append(_row(case["id"], replies))
            if len({reply.text for of in replies.values() for reply in of}) > 1:
                section.problems.append(f"{case['id']}: the texts differ")
    section.notes.append(
        f"Each pair of calls made {args.repeats} times, the second in each way, with its prompt in the cache; tokens "
        f"per second are those after the first piece of text. {'All texts are equal.' if not section.problems else ''}"
    )
    section.table("The second call, tokens per second", rows)
    gains = [row["with over without"] for row in rows]
    section.table("Geometric mean", [{"with over without": geometric_mean(gains) if gains else None}])
    return section


async def _second_calls(client: Client, case: Mapping[str, str]) -> Mapping[str, Reply]:
    """Return the second call's replies; of all calls to the gateway, only the last one knows of the first."""
    salt = {"cache_salt": uuid4().hex}
    first, second = user(case["first"]), user(case["second"])
    await client.chat(second, {**SPECULATIVE, **salt})  # so that its prompt is in the cache
    await client.chat(first, {**WAYS["with it"], **salt})
    return {way: await client.chat(second, {**fields, **salt}) for way, fields in WAYS.items()}


def _row(name: str, replies: Mapping[str, Sequence[Reply]]) -> dict[str, Any]:
    speeds = {way: median(1 / (reply.token_seconds or 1) for reply in of) for way, of in replies.items()}
    remembered = replies["with it"]
    taken = [reply.metrics["by_proposer"].get("memory") for reply in remembered]
    return {
        "calls": name,
        **speeds,
        "with over without": speeds["with it"] / speeds["without the memory"],
        "of the reply from the memory": median(
            (one["num_accepted_tokens"] if one else 0) / reply.completion_tokens
            for one, reply in zip(taken, remembered, strict=True)
        ),
    }
