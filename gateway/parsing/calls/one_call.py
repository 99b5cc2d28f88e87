"""What readers of one call have in common."""


class OneCall:
    """A reader that holds what more text has to decide, and stops at what is no part of the call."""

    def __init__(self, index: int) -> None:
        """Begin the call at this index."""
        self.num_calls = 0
        self.stopped = False
        self.rest = ""
        self._index = index
        self._held = ""

    def _wait_or_stop(self, text: str, *, waits: bool) -> str:
        """Hold the text if it waits for more, or else stop before it. Return what is left to read: nothing."""
        if waits:
            self._held = text
        else:
            self.stopped, self.rest = True, text
        return ""
