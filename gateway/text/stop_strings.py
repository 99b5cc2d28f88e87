"""Ends a text at a stop string."""

from collections.abc import Sequence


class StopStrings:
    """Takes a text piece by piece and passes on what cannot be part of a stop string.

    Text that may begin a stop string is held back until that is decided. Text after a stop string is never passed on,
    and the stop string itself only if asked for.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """Look for these strings, none of them empty; `include` passes on the one that is found."""
        self._stops, self._include = stops, include
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return the held text and this one, up to a stop string or to what must be held back."""
        text = self._held + text
        found = [(start, start + len(stop)) for stop in self._stops if (start := text.find(stop)) >= 0]
        self.found = bool(found)
        if found:
            start, rest = min(found)
            end = rest if self._include else start
        else:
            end = rest = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[rest:]
        return text[:end]

    def flush(self) -> str:
        """Return the held text: what followed the stop string, or what can no longer become one at the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of the text that is a beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
