"""What one mode of the benchmark found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.spread import Spread

Value = str | int | float | bool | Spread | None


@dataclass(frozen=True)
class Table:
    """Rows of named values; every row has the names of the first."""

    title: str
    rows: Sequence[Mapping[str, Value]]


@dataclass
class Section:
    """The findings of a mode: tables for machines and people alike, and everything that went wrong."""

    title: str
    command: str = ""
    notes: list[str] = field(default_factory=list)
    """How to read the tables."""
    tables: list[Table] = field(default_factory=list)
    plots: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Requests that failed, and texts that differ where they must not. A single one fails the run."""

    def table(self, title: str, rows: Sequence[Mapping[str, Value]]) -> None:
        """Add a table."""
        self.tables.append(Table(title, rows))
