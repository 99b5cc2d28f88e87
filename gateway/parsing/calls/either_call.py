"""Calls in JSON, or in a format's own form."""

from collections.abc import Callable

from gateway.parsing.calls.call_reader import CallReader
from gateway.parsing.calls.call_run import CallRun
from gateway.parsing.calls.tool_call import ToolCallDelta

MAX_SPACE = 16


class EitherCall:
    """Reads calls in JSON where the text begins with a bracket, and otherwise what the other reader reads."""

    def __init__(self, index: int, other: Callable[[], CallReader]) -> None:
        """Begin with the call at this index."""
        self._index, self._other = index, other
        self._reader: CallReader | None = None
        self._held = ""

    @property
    def num_calls(self) -> int:
        """How many calls there were."""
        return self._reader.num_calls if self._reader else 0

    @property
    def stopped(self) -> bool:
        """Whether it came to something else."""
        return bool(self._reader and self._reader.stopped)

    @property
    def rest(self) -> str:
        """That, as far as it has come."""
        return self._reader.rest if self._reader else ""

    @property
    def text(self) -> str:
        """What stands before `rest`, if there was no call."""
        return self._reader.text if self._reader else ""

    def push(self, text: str, *, last: bool) -> list[ToolCallDelta]:
        """Return what the text adds to the calls."""
        if not self._reader:
            text, self._held = self._held + text, ""
            begun = text.lstrip()
            if not begun and not last and len(text) < MAX_SPACE:
                self._held = text
                return []
            self._reader = CallRun(self._index) if begun.startswith(("{", "[")) else self._other()
        return self._reader.push(text, last=last)
