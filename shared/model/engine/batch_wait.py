"""Whether a pass should wait for sessions that are about to come back."""

from collections.abc import Hashable
from dataclasses import dataclass, field

PATIENCE = 1 / 4  # of a pass: how much longer than last time a session may stay away before we stop waiting for it
TICK_SECONDS = 0.0001  # shorter waits are skipped


@dataclass
class BatchWait:
    """How long a pass waits for sessions that are about to come back, so that they share it.

    The estimate is how long each session stayed away after its last pass. Sessions whose passes end together come back
    one by one. If the first started a pass of its own, the others would wait for it and come back after it, and the
    sessions would run in two groups for ever, each paying for a pass that both could share. Times are in seconds, all
    by the same clock.
    """

    _away: dict[Hashable, float] = field(default_factory=dict)  # since when
    _absence: dict[Hashable, float] = field(default_factory=dict)  # how long the last time
    _shortest_pass: float = 0.0

    def leave(self, session: Hashable, now: float) -> None:
        """Note that a session has received everything it asked for."""
        self._away[session] = now

    def come(self, session: Hashable, now: float) -> None:
        """Note that a session asks for more."""
        if session in self._away:
            self._absence[session] = now - self._away.pop(session)

    def end(self, session: Hashable) -> None:
        """Note that a session will not come back."""
        self._away.pop(session, None)
        self._absence.pop(session, None)

    def count_pass(self, seconds: float) -> None:
        """Note a pass. The shortest recent one estimates the fixed cost of a pass, whatever its rows."""
        self._shortest_pass = min(seconds, self._shortest_pass * 1.01) if self._shortest_pass else seconds

    def seconds(self, num_ready: int, now: float) -> float:
        """Return how long a pass with this many sessions should wait for others.

        A wait delays every session that is ready, and saves every session that arrives a pass of its own.
        """
        patience = self._shortest_pass * PATIENCE
        due = sorted(self._away[s] + absence - now for s, absence in self._absence.items() if s in self._away)
        likely = [max(wait, 0.0) for wait in due if wait + patience > TICK_SECONDS]
        worth = [wait for num, wait in enumerate(likely, 1) if wait * num_ready <= num * self._shortest_pass]
        return worth[-1] + patience if worth else 0.0
