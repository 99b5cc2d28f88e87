"""Ends a text at a stop string."""

from collections.abc import Sequence


class StopStrings:
    """Takes a text piece by piece and passes on what cannot be part of a stop string.

    Text that may begin a stop string is held back until that is decided. Text after a stop string is never passed on,
    and the stop string itself only if asked for.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """Look for these strings, none of them empty; `include` passes on the one that is found."""
        self._stops, self._include = [_Beginning(stop) for stop in stops], include
        self._firsts = frozenset(stop[0] for stop in stops)
        self._held = ""
        self.found = ""
        """The stop string, as soon as it is complete."""

    def push(self, text: str) -> str:
        """Return the held text and this one, up to a stop string or to what must be held back."""
        if not self._held and self._firsts.isdisjoint(text):  # as nearly always
            return text
        ends = [(len(self._held) + end, stop.whole) for stop in self._stops if (end := stop.push(text))]
        found = [(end - len(stop), end, stop) for end, stop in ends]
        text = self._held + text
        if found:
            start, rest, self.found = min(found)
            end = rest if self._include else start
        else:
            end = rest = len(text) - max((stop.length for stop in self._stops), default=0)
        self._held = text[rest:]
        return text[:end]

    def flush(self) -> str:
        """Return the held text: what followed the stop string, or what can no longer become one at the end."""
        held, self._held = self._held, ""
        return held


class _Beginning:
    """How much of a string the end of a text is, by the algorithm of Knuth, Morris and Pratt: one step a character."""

    def __init__(self, whole: str) -> None:
        """Begin a text."""
        self.whole, self.length = whole, 0
        self._shorter = [0]  # for each beginning by its length, less 1: that of the next shorter one it ends with
        for character in whole[1:]:
            self._shorter.append(self._after(self._shorter[-1], character))

    def push(self, text: str) -> int:
        """Go on until the string is whole; return where in the text it ends, 0 if it does not."""
        for end, character in enumerate(text, 1):
            self.length = self._after(self.length, character)
            if self.length == len(self.whole):
                return end
        return 0

    def _after(self, length: int, character: str) -> int:
        while length and self.whole[length] != character:
            length = self._shorter[length - 1]
        return length + (self.whole[length] == character)
