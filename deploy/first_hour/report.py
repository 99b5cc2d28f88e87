"""The report of the hour, as it is after each step."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.machine import Machine
from deploy.first_hour.plan import Plan
from deploy.first_hour.step import Result, Step

REHEARSAL = """\
**A rehearsal on a CPU, without a Neuron device: it shows that the steps run and says nothing about Trainium.**"""


def report(
    plan: Plan, arranged: Plan, steps: Sequence[Step], results: Mapping[str, Result], begun: Collection[str] = ()
) -> str:
    """Return it as Markdown: what held, what did not, what was begun or not reached, then the tables."""
    parts = [f"# First hour: {plan.title}", *([REHEARSAL] if plan.rehearsal else []), *_machine()]
    counts = [sum(name in results and results[name].held is held for name in _names(steps)) for held in (True, False)]
    counts += [len(begun), len(steps) - sum(counts) - len(begun)]
    kinds = ("held", "did not hold", "interrupted", "not reached")
    told = ", ".join(f"{count} {kind}" for count, kind in zip(counts, kinds, strict=True))
    parts.append(f"{len(steps)} steps: {told}.")
    parts.append(
        "\n".join(["| step | claim | held | seconds |", "| --- | --- | --- | --- |", *_lines(steps, results, begun)])
    )
    ranks = f"{arranged.ranks} ranks, {arranged.collective}" if arranged.ranks > 1 else "one rank"
    parts.append(f"The target: {ranks}, cores {arranged.target_cores or 'as they come'}.")
    for step in steps:
        if step.name in results:
            parts += [f"## {step.name}", *_told(results[step.name])]
    return "\n\n".join(parts) + "\n"


def _names(steps: Sequence[Step]) -> list[str]:
    return [step.name for step in steps]


def _machine() -> list[str]:
    facts = asdict(Machine.here())
    return ["\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())])]


def _lines(steps: Sequence[Step], results: Mapping[str, Result], begun: Collection[str]) -> Iterator[str]:
    for step in steps:
        result = results.get(step.name)
        missing = "interrupted" if step.name in begun else "not reached"
        held = missing if result is None else "yes" if result.held else "**NO**"
        yield f"| {step.name} | {step.title} | {held} | {result.seconds if result else ''} |"


def _told(result: Result) -> Iterator[str]:
    yield f"```\n{result.command}\n```"
    if result.said:
        yield f"```\n{result.said}\n```"
    if isinstance(result.document, dict):
        for section in result.document.get("sections", []):
            yield from (f"**{problem}**" for problem in section["problems"])
            yield from section["notes"]
            yield from (
                f"**{table['title']}**\n\n{_table(table['rows'])}" for table in section["tables"] if table["rows"]
            )
        if facts := {key: value for key, value in result.document.items() if not isinstance(value, dict | list)}:
            yield _table([facts])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.4g}"
        case {"median": median}:
            return _shown(median)
        case _:
            return str(value)
