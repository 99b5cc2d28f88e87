"""One request at a time: plain against speculative, by kind of prompt."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks import prompts
from benchmarks.client import PLAIN, SPECULATIVE, Client
from benchmarks.comparison import Comparison
from benchmarks.reply import Reply
from benchmarks.section import Section, Value
from benchmarks.spread import Spread

BOTH = {"plain": PLAIN, "speculative": SPECULATIVE}


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--repeats", type=int, default=3, help="how often each prompt is asked in each way")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("Single stream: plain against speculative")
    asked = prompts.load(args.prompts, args.limit)
    variants = {name: client.asking(fields) for name, fields in BOTH.items()}
    comparison = await Comparison.run("single stream", asked, variants, args.repeats)
    unequal = list(comparison.unequal(*BOTH))
    section.problems += comparison.failures()
    section.problems += [f"{prompt_id}: the plain and the speculative texts differ" for prompt_id in unequal]
    section.notes.append(
        f"{len(asked)} prompts, each asked {args.repeats} times in each way, in turns, after a warm-up. "
        "Tokens per second are over the whole request, prefill included; a ratio is between a prompt's medians. "
        f"Between two requests with one prompt came {comparison.fewest_between(*BOTH)} others or more, and "
        f"{args.num_slots} slots keep a prompt each. "
        + ("All texts are equal." if not section.problems else "NOT all requests were answered with equal texts.")
    )
    kinds = list(dict.fromkeys(prompt.kind for prompt in asked))
    section.table("By kind of prompt", [_kind_row(comparison, kind, unequal) for kind in kinds])
    groups = {"code, edit, json, structured": prompts.STRUCTURED, "open": (prompts.OPEN,), "all": ()}
    section.table("Speculative over plain", [_ratio_row(comparison, name, of) for name, of in groups.items()])
    section.table("Prompts", [_prompt_row(comparison, prompt, unequal) for prompt in asked])
    section.table("Where a round's time goes, ms", [overhead_row(name, comparison.of(name)) for name in BOTH])
    return section


def overhead_row(name: str, replies: Sequence[Reply]) -> Mapping[str, Value]:
    """Return the medians of the parts of a round's time, over the requests' own medians."""
    parts = [reply.metrics["round_p50_ms"] for reply in replies]
    overheads = [reply.metrics["round_overhead_p50_ms"] for reply in replies]
    columns = {part: [of[part] for of in parts] for part in (parts[0] if parts else ())}
    columns["overhead"] = overheads
    columns["overhead, share of the round"] = [
        overhead / sum(of.values()) for overhead, of in zip(overheads, parts, strict=True)
    ]
    return {"": name, **{column: median(values) if values else None for column, values in columns.items()}}


def acceptance_row(replies: Sequence[Reply]) -> Mapping[str, Value]:
    """Return the acceptance of these requests' drafts, taken together."""
    drafts, drafted, accepted = (
        sum(reply.metrics[name] for reply in replies)
        for name in ("num_drafts", "num_draft_tokens", "num_accepted_tokens")
    )
    return {
        "acceptance rate": accepted / drafted if drafted else None,
        "mean acceptance length": 1 + accepted / drafts if drafts else None,
    }


def _kind_row(comparison: Comparison, kind: str, unequal: Sequence[str]) -> Mapping[str, Value]:
    plain, speculative = (comparison.of(name, (kind,)) for name in BOTH)
    ids = [prompt.id for prompt in comparison.prompts if prompt.kind == kind]
    return {
        "kind": kind,
        "prompts": len(ids),
        "plain, tokens/s": Spread.of([reply.tokens_per_second for reply in plain]),
        "speculative, tokens/s": Spread.of([reply.tokens_per_second for reply in speculative]),
        "ratio": comparison.mean_ratio("speculative", "plain", (kind,)),
        **acceptance_row(speculative),
        "plain TTFT, s": Spread.of([reply.first_token_seconds for reply in plain]),
        "speculative TTFT, s": Spread.of([reply.first_token_seconds for reply in speculative]),
        "texts equal": not set(ids) & set(unequal),
    }


def _ratio_row(comparison: Comparison, name: str, kinds: Sequence[str]) -> Mapping[str, Value]:
    ratios = comparison.ratios("speculative", "plain", kinds)
    return {
        "prompts": name,
        "geometric mean": comparison.mean_ratio("speculative", "plain", kinds),
        "lowest": min(ratios, default=None),
        "highest": max(ratios, default=None),
    }


def _prompt_row(comparison: Comparison, prompt: prompts.Prompt, unequal: Sequence[str]) -> Mapping[str, Value]:
    replies = {name: comparison.replies[name, prompt.id] for name in BOTH}
    speeds = {name: [reply.tokens_per_second for reply in of if not reply.error] for name, of in replies.items()}
    return {
        "prompt": prompt.id,
        "kind": prompt.kind,
        "tokens": replies["plain"][0].completion_tokens,
        **{f"{name}, tokens/s": Spread.of(of) for name, of in speeds.items()},
        "ratio": median(speeds["speculative"]) / median(speeds["plain"]) if all(speeds.values()) else None,
        "text equal": prompt.id not in unequal,
    }
