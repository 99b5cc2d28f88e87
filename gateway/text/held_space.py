"""Holds back the space at the end of a text."""


class HeldSpace:
    """Takes a text piece by piece and holds the space at its end until something else follows."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._pieces: list[str] = []

    def push(self, text: str) -> str:
        """Return the held space and this text up to the space at its end; nothing if it is all space."""
        kept = text.rstrip()
        if not kept:
            self._pieces.append(text)
            return ""
        whole = self.flush() + kept
        self._pieces.append(text[len(kept) :])
        return whole

    def flush(self) -> str:
        """Return the held space, and hold it no longer."""
        held = "".join(self._pieces)
        self._pieces.clear()
        return held
