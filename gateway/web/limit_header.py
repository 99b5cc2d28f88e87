"""The header that tells of a limit that was cut."""

from gateway.generation.usage import Usage

MAX_TOKENS = "x-outrider-max-tokens"


def limit_header(usage: Usage) -> dict[str, str]:
    """Return the header that says how many tokens a choice may have, where the context has left fewer than asked."""
    return {} if usage.max_tokens is None else {MAX_TOKENS: str(usage.max_tokens)}
