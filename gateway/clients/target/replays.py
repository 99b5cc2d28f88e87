"""Whether a session that lost its replica may go on at another one."""

from gateway.clients.errors import NotReachedError, SessionFailedError, TargetUnavailableError

MAX_REPLAYS = 3
MAX_MOVES = 8


class Replays:
    """Counts the replicas that a session lost, lest it ends one after another.

    What ended the stream                                          counts as
    --------------------------------------------------------------------------------------
    no replica had it: no connection, or none said that it has it  a move
    the replica stopped as it was told to, its grace being over    a move
    the replica gave up a session that asked nothing for too long  a move
    the replica died, fell silent or answered nonsense             a replay
    the replica failed at this session, and goes on                a replay, the only one

    A move says nothing against the session: replicas may be drained one after another for as long as it lives. Only if
    nothing is committed does it end, after MAX_MOVES.

    A replay may bring the next replica what ended the last one. So the session is a suspect until a token of it is
    committed, and a suspect that loses its replica again is given up: nothing ends more than two replicas. But those
    beside it lost the same replica. So suspects go to the next one in turns (`Replicas.turn`): those who have had
    theirs are none any more, and those who still wait for it have nothing to lose there. Other gateways have turns of
    their own.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.suspect = False
        """Whether it was replayed and has committed nothing since."""
        self._num_replays = self._num_moves = 0
        self._failed = False

    def count(self, error: TargetUnavailableError) -> None:
        """Count what ended a stream. Raises it if the session may not go on."""
        if isinstance(error, NotReachedError):
            self._num_moves += 1
            if self._num_moves > MAX_MOVES:
                raise error
            return
        failed = isinstance(error, SessionFailedError)
        if self.suspect or self._num_replays == MAX_REPLAYS or (failed and self._failed):
            raise error
        self.suspect, self._failed = True, self._failed or failed
        self._num_replays += 1

    def commit(self) -> None:
        """Take note that a token was committed."""
        self.suspect, self._num_moves = False, 0
