"""Shows the progress of a measurement on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar for the length of the block; yields a function to call after each of `total` steps."""
    with Progress(*COLUMNS, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total)
        yield lambda: bars.advance(task)
