"""What a session is told when something that ran for it failed."""

from shared.errors import OutriderError, SessionFailedError

_OUT_OF_MEMORY = "not enough memory", "out of memory", "can't allocate memory", "failed to allocate", "bad_alloc"
"""What torch and ONNX Runtime say in lower case; their exceptions are plain RuntimeErrors."""


def failure_of(error: Exception) -> OutriderError:
    """Return the session's error for any exception: without its traceback, whose frames may hold much memory."""
    if isinstance(error, OutriderError):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return SessionFailedError("out of memory: this replica has too little left for the session's next pass")
    return SessionFailedError(f"the session's pass failed: {type(error).__name__}: {text}")
