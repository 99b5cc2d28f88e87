"""The errors that cross a service's boundary, and the gRPC status of each.

OutriderError
├── InvalidFieldError      a request's field has a wrong value      INVALID_ARGUMENT
├── OutOfOrderError        a round or position is out of order      FAILED_PRECONDITION
├── NoFreeSlotError        no slot became free in time              RESOURCE_EXHAUSTED
├── NoTokenError           no token can be drawn                    DATA_LOSS
├── IdleError              nothing came from the client, or went to  DEADLINE_EXCEEDED
├── SessionFailedError     what ran for one session failed        INTERNAL
├── DrainingError          the service takes no new sessions        UNAVAILABLE
├── ModelError             a model that cannot be served            stops the start
└── SettingError           a setting that this machine cannot keep  stops the start
"""

import grpc


class OutriderError(Exception):
    """Anything Outrider itself finds wrong."""


class InvalidFieldError(OutriderError):
    """A request's field has a wrong value."""

    def __init__(self, field: str, problem: str) -> None:
        """Name the field as the protocol names it, then say what is wrong with it."""
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class OutOfOrderError(OutriderError):
    """A round or a position does not follow from what came before."""


class NoFreeSlotError(OutriderError):
    """Every slot stayed busy for as long as the request could wait."""

    def __init__(self, message: str, retry_after_ms: int) -> None:
        """Also tell the client how many milliseconds to wait before it tries again."""
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class NoTokenError(OutriderError):
    """No token can be drawn: a row's logits are not numbers, or every token is forbidden."""


class IdleError(OutriderError):
    """The client sent nothing, or read nothing, for so long that its slot is given to others."""


class SessionFailedError(OutriderError):
    """What ran for one session failed, alone too, while the model goes on to run for others."""


class DrainingError(OutriderError):
    """The service is about to stop and takes no new sessions."""


class ModelError(OutriderError):
    """A model that cannot be found, or cannot be served."""


class SettingError(OutriderError):
    """A setting that is right by itself, and more than this machine has."""

    def __init__(self, key: str, problem: str) -> None:
        """Name the setting, then say what is wrong with it."""
        super().__init__(f"{key}: {problem}")


STATUS: dict[type[OutriderError], grpc.StatusCode] = {
    InvalidFieldError: grpc.StatusCode.INVALID_ARGUMENT,
    OutOfOrderError: grpc.StatusCode.FAILED_PRECONDITION,
    NoFreeSlotError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NoTokenError: grpc.StatusCode.DATA_LOSS,  # gRPC itself never sends it, and another replica would fail, too
    IdleError: grpc.StatusCode.DEADLINE_EXCEEDED,
    SessionFailedError: grpc.StatusCode.INTERNAL,
    DrainingError: grpc.StatusCode.UNAVAILABLE,
}
