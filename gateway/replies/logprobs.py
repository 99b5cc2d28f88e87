"""The log-probabilities of a reply's tokens, in the OpenAI API's two forms."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from gateway.generation.delta import ScoredToken
from gateway.text.token_bytes import TokenBytes


def chat_logprobs(tokens: Iterable[ScoredToken], names: TokenBytes) -> dict[str, Any]:
    """Return the `logprobs` of a chat's choice."""
    text = cache(names.text)  # the likeliest tokens are often the same
    spelling = cache(lambda token_id: list(names[token_id]))

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


def completion_logprobs(tokens: Sequence[ScoredToken], names: TokenBytes) -> dict[str, Any]:
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
