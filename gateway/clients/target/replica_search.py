"""How a session finds a replica that takes it."""

from time import monotonic

from gateway.clients.errors import NotReachedError, OtherReplicaError, SilentError
from gateway.clients.target.replicas import Replicas
from shared.errors import NoFreeSlotError

PAUSES_SECONDS = (0.0, 0.2, 1.0)  # before trying to reach a replica, round_robin's next
OTHERS = 8  # this many wrong replicas are passed over before a pause
SILENT = 6  # that many which did not say who they are, and are no longer chosen once they miss gRPC's pings
LINE_SECONDS = 5.0  # in line at one replica before the others are asked again


class ReplicaSearch:
    """Asks replicas one after another, and says when to give up and how long to wait for a slot.

    First all are asked without waiting. If all are full, the session stands in line at the next one for a while, then
    asks all again, until it has waited for as long as a replica lets sessions wait. Where there is one replica, it
    stays in its line, and nobody overtakes it. Where all lines are full, too, it is refused at once.

    gRPC chooses who is asked, and says nothing of how many there are. All were asked when one is met again and all that
    the gateway knows were met.
    """

    def __init__(self, replicas: Replicas, patience: int = 1) -> None:
        """Wait for at most `patience` times as long as a replica lets sessions wait."""
        self.wait_seconds = 0.0
        """How long to wait for a slot at the next replica."""
        self._replicas, self._patience = replicas, patience
        self._started = self._asked_at = monotonic()
        self._met: list[str] = []  # since the last time in line, or those whose line is full
        self._pauses, self._num_others, self._num_silent = iter(PAUSES_SECONDS[1:]), 0, 0

    def ask(self) -> None:
        """Take note that a replica is asked now."""
        self._asked_at = monotonic()

    def pause(self, error: NoFreeSlotError | NotReachedError | OtherReplicaError, incarnation: str) -> float:
        """Return for how many seconds to ask no other, after one did not take the session.

        Raises the error if none is to be asked any more.
        """
        if isinstance(error, NoFreeSlotError):
            self._num_others = 0
            self._stand_in_line(error, incarnation)
            return 0.0
        if isinstance(error, SilentError):
            self._num_silent += 1
            if self._num_silent < SILENT:
                return 0.0
            raise error
        if isinstance(error, OtherReplicaError):
            self._num_others += 1
            if self._num_others % OTHERS:
                return 0.0
        if (pause_seconds := next(self._pauses, None)) is None:
            raise error
        return pause_seconds

    def _stand_in_line(self, error: NoFreeSlotError, incarnation: str) -> None:
        """Choose how long to wait at the next replica. Raises the error if the session has waited long enough."""
        now = monotonic()
        most = error.retry_after_ms / 1000  # that the replica lets a session wait
        left = self._started + self._patience * most - now
        if left <= 0:
            raise error
        if self.wait_seconds and now - self._asked_at > 0.9 * self.wait_seconds:  # it stood in line in vain
            self.wait_seconds, self._met = 0.0, []
        all_met = self._all_met(incarnation)
        self._met.append(incarnation)
        if not all_met:
            return
        if self.wait_seconds:
            raise error
        self._met = []
        self.wait_seconds = min(most, left, LINE_SECONDS if len(self._replicas.known) > 1 else left)

    def _all_met(self, incarnation: str) -> bool:
        known = self._replicas.known
        if len(self._met) > 2 * len(known):  # some of them are gone, or gRPC does not come round to all
            return True
        return incarnation in self._met and known <= {*self._met, incarnation}
