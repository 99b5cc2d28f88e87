"""Replies in JSON by a schema: what the tokens gain that the grammar forces."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.client import PLAIN, SPECULATIVE, Ask, Client, speculating, user
from benchmarks.comparison import Comparison
from benchmarks.prompts import Prompt
from benchmarks.reply import Reply
from benchmarks.section import Section

CASES = Path(__file__).with_name("schemas.json")
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": PLAIN,
    "draft alone": speculating(forced=False),
    "with forced tokens": SPECULATIVE,
}


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--repeats", type=int, default=2, help="how often each prompt is asked in each way")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("JSON by a schema: with and without forced tokens")
    cases = json.loads(CASES.read_text("utf-8"))[: args.limit]
    asked = [Prompt(case["id"], "json", case["prompt"]) for case in cases]
    schemas = {case["prompt"]: case["schema"] for case in cases}
    variants = {name: _asking(client, fields, schemas) for name, fields in VARIANTS.items()}
    comparison = await Comparison.run("schemas", asked, variants, args.repeats)
    section.problems += comparison.failures()
    section.problems += [f"{prompt_id}: the texts differ" for prompt_id in comparison.unequal(*VARIANTS)]
    section.notes.append(
        f"Each prompt asked {args.repeats} times in each way, in turns, after a warm-up; a ratio is between a prompt's "
        f"medians. {'All texts are equal.' if not section.problems else 'NOT all texts are equal.'}"
    )
    section.table("Tokens per second", [_row(comparison, prompt.id) for prompt in asked])
    means = {f"{name}, tokens/s": comparison.mean_speed(name) for name in VARIANTS}
    gain = {"forced over draft alone": comparison.mean_ratio("with forced tokens", "draft alone")}
    section.table("Geometric means", [{**means, **gain}])
    return section


def _asking(client: Client, fields: Mapping[str, Any], schemas: Mapping[str, Any]) -> Ask:
    async def ask(prompt: str) -> Reply:
        schema = schemas.get(prompt)  # the warm-up has none
        wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
        return await client.chat(user(prompt), {**fields, **({"response_format": wanted} if schema else {})})

    return ask


def _row(comparison: Comparison, prompt_id: str) -> dict[str, str | float | None]:
    whole = {
        name: [reply for reply in comparison.replies[name, prompt_id] if not reply.error]
        for name in comparison.variants
    }
    speeds = {name: median(reply.tokens_per_second for reply in of) if of else None for name, of in whole.items()}
    fast, slow = speeds["with forced tokens"], speeds["draft alone"]
    tokens = sum(reply.completion_tokens for reply in whole["with forced tokens"])
    forced = sum(reply.metrics["num_forced_tokens"] for reply in whole["with forced tokens"])
    return {
        "prompt": prompt_id,
        **{f"{name}, tokens/s": speed for name, speed in speeds.items()},
        "forced over draft alone": fast / slow if fast and slow else None,
        "share of forced tokens": forced / tokens if tokens else None,
    }
