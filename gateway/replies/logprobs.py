"""The log-probabilities of a reply's tokens, in the OpenAI API's two forms."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from gateway.generation.delta import ScoredToken
from gateway.text.token_bytes import TokenBytes


class TokenNames:
    """What replies call tokens: by their texts, or by their ids, as vLLM does if asked."""

    def __init__(self, token_bytes: TokenBytes, *, as_ids: bool = False) -> None:
        """Name the tokens of this vocabulary."""
        self._bytes, self._as_ids = token_bytes, as_ids

    def text(self, token_id: int) -> str:
        """Return a token's name."""
        return f"token_id:{token_id}" if self._as_ids else self._bytes.text(token_id)

    def spelling(self, token_id: int) -> list[int]:
        """Return a token's bytes."""
        return list(self._bytes[token_id])


def chat_logprobs(tokens: Iterable[ScoredToken], names: TokenNames) -> dict[str, Any]:
    """Return the `logprobs` of a chat's choice."""
    text, spelling = cache(names.text), cache(names.spelling)  # the likeliest tokens are often the same

    def one(token_id: int, logprob: float) -> dict[str, Any]:
        return {"token": text(token_id), "logprob": logprob, "bytes": spelling(token_id)}

    content = [
        one(token.token_id, token.logprobs.logprob)
        | {
            "top_logprobs": [
                one(*top) for top in zip(token.logprobs.top_token_ids, token.logprobs.top_logprobs, strict=True)
            ]
        }
        for token in tokens
        if token.logprobs
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
    """Return the `logprobs` of a completion's choice. The sampled token is always among the top ones."""
    text = cache(names.text)
    return {
        "tokens": [text(token.token_id) for token in tokens],
        "token_logprobs": [token.logprobs.logprob if token.logprobs else None for token in tokens],
        "top_logprobs": [
            {text(token.token_id): token.logprobs.logprob}
            | dict(zip(map(text, token.logprobs.top_token_ids), token.logprobs.top_logprobs, strict=True))
            if token.logprobs
            else None
            for token in tokens
        ],
        "text_offset": [token.offset for token in tokens],
    }
