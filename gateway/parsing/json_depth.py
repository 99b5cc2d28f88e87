"""How deep inside a JSON text one is, as it comes."""

import re

_MARKS = re.compile(r'[\\"{}\[\]]')


class JsonDepth:
    """Counts the open brackets, of either kind, outside strings. It takes any text, JSON or not."""

    def __init__(self) -> None:
        """Begin a text."""
        self._length = self._depth = 0
        self._in_string = False
        self._escaped = -1  # where in the text a character stands behind a backslash

    def push(self, text: str) -> list[tuple[int, int]]:
        """Return, for each bracket of the text that is added, where it ends in it and how many are open then."""
        found = list[tuple[int, int]]()
        for mark in _MARKS.finditer(text):
            position = self._length + mark.start()
            if position == self._escaped:
                continue
            if mark[0] == '"':
                self._in_string = not self._in_string
            elif self._in_string:
                self._escaped = position + 1 if mark[0] == "\\" else self._escaped
            elif mark[0] != "\\":
                self._depth += 1 if mark[0] in "{[" else -1
                found.append((mark.end(), self._depth))
        self._length += len(text)
        return found
