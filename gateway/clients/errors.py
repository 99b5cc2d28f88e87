"""What can go wrong with the target service."""

from shared.errors import OutriderError


class TargetUnavailableError(OutriderError):
    """The target service cannot be reached, or it failed."""


class OtherReplicaError(TargetUnavailableError):
    """The replica that answered may not decode this sequence."""
