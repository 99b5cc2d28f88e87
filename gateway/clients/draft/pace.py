"""How long to wait for a proposal."""

from collections import defaultdict, deque
from functools import partial

MEMORY = 16
ENOUGH = 8
TIMES = 4.0
SHORTEST_SHARE = 1 / 5
CATCH_UP_TOKENS = 32  # from this many new tokens the draft model is catching up, and its time is not the usual one


class DraftPace:
    """What proposals took of late, over all sessions, by how many draft tokens were asked for.

    A draft that hangs should cost what is long for it, not what is long for any. So the deadline is TIMES the longest
    of the last MEMORY proposals, late ones included, though never less than a share of the longest deadline. Where too
    little was measured, or the draft must read many tokens first, it is the longest one.
    """

    def __init__(self) -> None:
        """Begin with nothing measured."""
        self._seconds: defaultdict[int, deque[float]] = defaultdict(partial(deque[float], maxlen=MEMORY))

    def add(self, num_asked: int, num_new: int, seconds: float) -> None:
        """Record a whole proposal; `num_new` is how many tokens the draft model had to read for it."""
        if num_new < CATCH_UP_TOKENS:
            self._seconds[num_asked].append(seconds)

    def deadline_seconds(self, num_asked: int, num_new: int, longest_seconds: float) -> float:
        """Return how long to wait for a proposal, at most `longest_seconds`."""
        measured = self._seconds[num_asked]
        if num_new >= CATCH_UP_TOKENS or len(measured) < ENOUGH:
            return longest_seconds
        return min(max(TIMES * max(measured), SHORTEST_SHARE * longest_seconds), longest_seconds)
