"""What is wrong with a request as a whole."""

from shared.errors import InvalidFieldError, OutriderError


class ContextLengthError(InvalidFieldError):
    """A prompt, or the least that the request wants of a reply, does not fit the context."""


class ModelNotFoundError(OutriderError):
    """No model of this name is served."""

    def __init__(self, name: str) -> None:
        """Name the model that was asked for."""
        super().__init__(f"model: {name!r} does not exist")


class RequestTimeoutError(OutriderError):
    """A request took longer than any may."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the request took longer than the gateway allows")
