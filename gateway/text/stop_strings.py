"""Ends a text at a stop string."""

from collections.abc import Sequence
from functools import lru_cache


class StopStrings:
    """Takes a text piece by piece and passes on what cannot be part of a stop string.

    Text that may begin a stop string is held back until that is decided. Text after a stop string is never passed on,
    and the stop string itself only if asked for.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """Look for these strings, none of them empty; `include` passes on the one that is found."""
        self._stops, self._include = stops, include
        self._overlaps = [0] * len(stops)
        """How many characters at the end of the text begin each of the stop strings."""
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return the held text and this one, up to a stop string or to what must be held back."""
        pairs = zip(self._stops, self._overlaps, strict=True)
        self._overlaps = [_overlap(stop, before, text) for stop, before in pairs]
        text = self._held + text
        found = [(start, start + len(stop)) for stop in self._stops if (start := text.find(stop)) >= 0]
        self.found = bool(found)
        if found:
            start, rest = min(found)
            end = rest if self._include else start
        else:
            end = rest = len(text) - max(self._overlaps, default=0)
        self._held = text[rest:]
        return text[:end]

    def flush(self) -> str:
        """Return the held text: what followed the stop string, or what can no longer become one at the end."""
        held, self._held = self._held, ""
        return held


def _overlap(stop: str, overlap: int, text: str) -> int:
    """Return how much of `stop`, but not all of it, ends a text that grew by this one: Knuth, Morris and Pratt."""
    borders = _borders(stop)
    for character in text:
        while overlap and stop[overlap] != character:
            overlap = borders[overlap]
        overlap += stop[overlap] == character
        if overlap == len(stop):
            overlap = borders[overlap]
    return overlap


@lru_cache(maxsize=1024)
def _borders(stop: str) -> list[int]:
    """Return, for each beginning of `stop`, the longest shorter beginning that it ends with."""
    borders = [0, 0]
    for character in stop[1:]:
        border = borders[-1]
        while border and stop[border] != character:
            border = borders[border]
        borders.append(border + (stop[border] == character))
    return borders
