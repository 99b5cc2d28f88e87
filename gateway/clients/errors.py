"""What can go wrong with the target service.

TargetUnavailableError       a replica fell silent, died, or answered nonsense, and had this session in its hands
├── NotReachedError          no replica had it, or the one that had it let it go for other reasons
│   └── SilentError          no replica said that it has it
├── SessionFailedError       a replica says that it failed at this session, and goes on itself
└── OtherReplicaError        a replica that may not decode this sequence
"""

from shared.errors import OutriderError


class TargetUnavailableError(OutriderError):
    """The target service cannot be reached, or it failed."""


class NotReachedError(TargetUnavailableError):
    """The session cannot be why: no replica had it, or the one that had it let it go for other reasons."""


class SilentError(NotReachedError):
    """A replica did not even say who it is."""


class SessionFailedError(TargetUnavailableError):
    """What a replica ran for this session failed, and the replica goes on."""


class OtherReplicaError(TargetUnavailableError):
    """The replica that answered may not decode this sequence."""
