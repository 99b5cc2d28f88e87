"""Replies in JSON by a schema: what the tokens gain that the grammar forces."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
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
FORMS: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "the model's": lambda schema: {
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
    },
    "none": lambda schema: {"structured_outputs": {"json": schema, "disable_any_whitespace": True}},
}
"""With white space between its parts, of which little is forced, and without."""
COMPILING_TOKENS = 8  # by which both services have been asked


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--repeats", type=int, default=2, help="how often each prompt is asked in each way")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("JSON by a schema: with and without forced tokens")
    cases = json.loads(CASES.read_text("utf-8"))[: args.limit]
    asked = [Prompt(case["id"], "json", case["prompt"]) for case in cases]
    rows, means = list[dict[str, Any]](), list[dict[str, Any]]()
    for form, wanting in FORMS.items():
        wanted = {case["prompt"]: wanting(case["schema"]) for case in cases}
        variants = {name: _asking(client, fields, wanted) for name, fields in VARIANTS.items()}
        for case in cases:
            await client.chat(user(case["prompt"]), {**SPECULATIVE, **wanted[case["prompt"]]}, COMPILING_TOKENS)
        comparison = await Comparison.run(f"schemas, {form}", asked, variants, args.repeats)
        section.problems += [f"{form}: {problem}" for problem in comparison.failures()]
        section.problems += [f"{form}, {prompt_id}: the texts differ" for prompt_id in comparison.unequal(*VARIANTS)]
        rows += [{"white space": form, **_row(comparison, prompt.id)} for prompt in asked]
        speeds = {f"{name}, tokens/s": comparison.mean_speed(name) for name in VARIANTS}
        gain = {"forced over draft alone": comparison.mean_ratio("with forced tokens", "draft alone")}
        means.append({"white space": form, **speeds, **gain})
    section.notes.append(
        f"Each prompt asked {args.repeats} times in each way, in turns, once its grammar was compiled; a ratio is "
        f"between a prompt's medians. {'All texts are equal.' if not section.problems else 'NOT all texts are equal.'}"
    )
    section.table("Tokens per second", rows)
    section.table("Geometric means", means)
    return section


def _asking(client: Client, fields: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> Ask:
    async def ask(prompt: str) -> Reply:
        return await client.chat(user(prompt), {**fields, **wanted.get(prompt, {})})  # the warm-up has none

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
