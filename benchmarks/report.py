"""The report of a run: for people on the console and in Markdown, for machines in JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.machine import Machine
from benchmarks.section import Section, Value
from benchmarks.spread import Spread

HEAD = """\
# Benchmarks

Written by `python -m benchmarks`; nothing here is typed by hand. Speeds drift with the machine: the ratios, each taken
within one run, are what to keep. A value with a range is a median and its quartiles.
"""


@dataclass(frozen=True)
class Report:
    """A run."""

    machine: Machine
    sections: Sequence[Section]

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return any(section.problems for section in self.sections)

    def show(self, console: Console) -> None:
        """Print it on the console."""
        for section in self.sections:
            console.rule(section.title, align="left")
            for note in section.notes:
                console.print(note, style="dim", markup=False)
            for table in section.tables:
                grid = RichTable(*table.rows[0], title=table.title, title_justify="left")
                for row in table.rows:
                    grid.add_row(*map(shown, row.values()))
                console.print(grid)
            for plot in section.plots:
                console.print(f"plot: {plot}", markup=False)
            for problem in section.problems:
                console.print(f"PROBLEM: {problem}", style="bold red", markup=False)

    def markdown(self, folder: Path) -> str:
        """Return it as Markdown, for a file in this folder."""
        machine = [f"| {name.replace('_', ' ')} | {value} |" for name, value in asdict(self.machine).items()]
        parts = [HEAD, "\n".join(["| | |", "| --- | --- |", *machine]), *_verdict(self.sections)]
        for section in self.sections:
            parts += [f"## {section.title}", f"```\n{section.command}\n```", *section.notes]
            for table in section.tables:
                header = [f"| {' | '.join(table.rows[0])} |", f"| {' | '.join('---' for _ in table.rows[0])} |"]
                rows = [f"| {' | '.join(map(shown, row.values()))} |" for row in table.rows]
                parts += [f"**{table.title}**", "\n".join([*header, *rows])]
            parts += [f"![{section.title}]({plot.resolve().relative_to(folder.resolve())})" for plot in section.plots]
            parts += [f"**PROBLEM**: {problem}" for problem in section.problems]
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def json(self) -> str:
        """Return it as one JSON document."""
        document: dict[str, Any] = {"machine": asdict(self.machine), "failed": self.failed}
        return json.dumps(
            document | {"sections": [asdict(section) for section in self.sections]}, default=str, indent=1
        )


def shown(value: Value) -> str:
    """Return a value as text for people: numbers with three significant digits."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case Spread():
            return f"{shown(value.median)} ({shown(value.low)} to {shown(value.high)})"
        case float():
            return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
        case _:
            return str(value)


def _verdict(sections: Sequence[Section]) -> Iterator[str]:
    problems = sum(len(section.problems) for section in sections)
    if problems:
        yield f"**THIS RUN HAS FAILED: {problems} problems, each under its section.**"
