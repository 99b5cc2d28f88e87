"""Ends a text at a stop string."""

from collections.abc import Sequence


class StopStrings:
    """Takes a text piece by piece and gives on what cannot be part of a stop string.

    What may be the beginning of one is held back until it is decided. What follows a stop string is never given on,
    and it itself only where that was asked for.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """Look for these strings, none of which is empty; `include` gives on the one that is found."""
        self._stops, self._include = stops, include
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return the text, the held one first, up to a stop string or to what has to be held back."""
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
    """Return the length of the longest end of the text that `stop`, longer than it, begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
