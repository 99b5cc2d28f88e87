"""What Outrider's cache holds, listed and cleaned: `python -m shared.model.checkpoints.cache list`.

All of it can be made or downloaded again, and is when it is needed.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from shared.errors import ModelError
from shared.model.kept import cache

UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Entry:
    """A model in the cache, or all results of another kind."""

    path: Path
    size: int
    """In bytes."""
    used: datetime
    """When a folder of a model was last used; when anything else was made."""

    @classmethod
    def of(cls, path: Path) -> "Entry":
        """Look at the files below the path."""
        size = sum(file.lstat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        return cls(path, size, datetime.fromtimestamp(path.stat().st_mtime).astimezone())


def entries() -> list[Entry]:
    """Return what the cache holds, the largest first. Raises ModelError if there is no home directory."""
    models = cache("models")
    paths = [path for folder in (models.parent, models) if folder.is_dir() for path in folder.iterdir()]
    shown = [path for path in paths if path != models and path.suffix != ".lock"]
    return sorted(map(Entry.of, shown), key=lambda entry: entry.size, reverse=True)


def show(console: Console) -> None:
    """Print a line for each entry, and the size of all. Raises ModelError."""
    held = entries()
    table = Table("name", "size", "last used or made", title=str(cache("")), caption=decimal(sum(e.size for e in held)))
    for entry in held:
        table.add_row(entry.path.name, decimal(entry.size), f"{entry.used:%Y-%m-%d %H:%M}")
    console.print(table)


def clean(patterns: Sequence[str]) -> list[Entry]:
    """Remove the entries of these names, `*` being all, but for what is being made; return what was removed.

    Raises ModelError for a name that no entry has, before anything is removed.
    """
    held = entries()
    for pattern in patterns:
        if not any(fnmatchcase(entry.path.name, pattern) for entry in held):
            raise ModelError(f"{pattern}: the cache holds nothing of this name")
    named = [entry for entry in held if any(fnmatchcase(entry.path.name, pattern) for pattern in patterns)]
    return [entry for entry in named if _remove(entry.path)]


def _remove(path: Path) -> bool:
    """Remove a file or a folder, unless a process is making it."""
    if path.suffix == UNFINISHED:
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                shutil.rmtree(path)
        except Timeout:
            return False
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return True


def main() -> None:
    """List the cache's entries, or remove some."""
    flags = argparse.ArgumentParser(prog="python -m shared.model.checkpoints.cache", description=main.__doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what the cache holds, how large it is, and when it was last used or made")
    cleaning = commands.add_parser("clean", help="removes entries; what is needed again is made or downloaded again")
    cleaning.add_argument("name", nargs="+", help="as listed, or a pattern such as 'qwen*'; '*' is all")
    args = flags.parse_args()
    console = Console()
    try:
        if args.command == "list":
            show(console)
            return
        for entry in clean(args.name):
            console.print(f"removed {entry.path.name}, {decimal(entry.size)}", highlight=False)
    except ModelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
