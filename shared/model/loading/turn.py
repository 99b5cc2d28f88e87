"""Whose turn it is to take memory, among the services on one machine."""

import fcntl
import os
import tempfile
import time
from pathlib import Path
from typing import Self

import structlog

log = structlog.get_logger()

MAX_WAIT_SECONDS = 900.0  # the weights of a large model take minutes to load
TICK_SECONDS = 0.05


class Turn:
    """Held while a model is loaded. `take` waits until nobody else loads one; then nobody else takes memory.

    A draft and a target start side by side: what one of them finds left, the other may be about to fill with weights.
    It is a lock of a file: among one user's services that share a folder for temporary files. Where they do not, as in
    containers, each has a limit of its own.
    """

    def __enter__(self) -> Self:
        """Begin to load."""
        try:
            path = Path(tempfile.gettempdir()) / f"outrider-{os.getuid()}-memory.lock"
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("services that start beside this one do not wait for it", reason=str(error))
            self._file = None
        self._lock(fcntl.LOCK_SH)
        return self

    def take(self) -> None:
        """Wait for the turn, which lasts to the end of the block."""
        self._lock(fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Give it to the next one."""
        if self._file is not None:
            os.close(self._file)

    def _lock(self, kind: int) -> None:
        """Lock the file, or go on without after a while. A lock is let go of before it is changed: no two can block."""
        end = time.monotonic() + MAX_WAIT_SECONDS
        while self._file is not None:
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    log.warning("another service still takes memory or loads a model: not waiting any longer")
                    return
                time.sleep(TICK_SECONDS)
            except OSError as error:  # a file system without locks
                log.warning("services that start beside this one do not wait for it", reason=str(error))
                return
            else:
                return
