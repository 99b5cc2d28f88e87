"""Whether a pass should wait for sessions that are about to come back."""

from collections.abc import Hashable
from dataclasses import dataclass, field

PATIENCE = 1 / 4  # of a pass: how much later than last time a session may come back and still be waited for
TICK_SECONDS = 0.0001  # a wait shorter than this is none


@dataclass
class BatchWait:
    """How long a pass waits for sessions that are about to come back, so that they share it.

    It goes by how long each stayed away after its last pass. Sessions whose passes end at one time come back one after
    the other. Would the first of them start a pass of its own, the others would wait for it, come back after it, and
    so on for ever in two groups, each of which pays for a pass what both could share. Times are in seconds, of one
    clock.
    """

    _away: dict[Hashable, float] = field(default_factory=dict)  # since when
    _absence: dict[Hashable, float] = field(default_factory=dict)  # how long the last time
    _shortest_pass: float = 0.0

    def leave(self, session: Hashable, now: float) -> None:
        """Take note that a session has got all that it asked for."""
        self._away[session] = now

    def come(self, session: Hashable, now: float) -> None:
        """Take note that a session asks for more."""
        if session in self._away:
            self._absence[session] = now - self._away.pop(session)

    def end(self, session: Hashable) -> None:
        """Take note that a session will not come back."""
        self._away.pop(session, None)
        self._absence.pop(session, None)

    def count_pass(self, seconds: float) -> None:
        """Take note of a pass. The shortest of late is what every pass costs, whatever its rows."""
        self._shortest_pass = min(seconds, self._shortest_pass * 1.01) if self._shortest_pass else seconds

    def seconds(self, num_ready: int, now: float) -> float:
        """Return how long a pass of so many sessions should wait for others.

        A wait costs each session that is ready as much, and spares each that comes a pass of its own.
        """
        patience = self._shortest_pass * PATIENCE
        due = sorted(self._away[s] + absence - now for s, absence in self._absence.items() if s in self._away)
        likely = [max(wait, 0.0) for wait in due if wait + patience > TICK_SECONDS]
        worth = [wait for num, wait in enumerate(likely, 1) if wait * num_ready <= num * self._shortest_pass]
        return worth[-1] + patience if worth else 0.0
