"""How the tokens of a request are drawn."""

import secrets

from gateway.requests.generation import GenerationRequest
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.sampling_params import SamplingParams


def sampling_params(request: GenerationRequest, vocab_size: int, tokenizer: ChatTokenizer) -> SamplingParams:
    """Return them, but for the grammar. Raises InvalidFieldError for a bias of what is no token of the model."""
    biases = {int(token_id): bias for token_id, bias in request.logit_bias.items()}
    if biases and max(biases) >= vocab_size:
        raise InvalidFieldError("logit_bias", f"{max(biases)} is no token of the model")
    ends = frozenset() if request.ignore_eos else tokenizer.stop_token_ids
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=max(request.top_k, 0),
        # No more bits than a JavaScript client reads back exactly.
        seed=request.seed if request.seed is not None else secrets.randbits(53),
        stop_token_ids=ends.union(request.stop_token_ids, tokenizer.token_bytes.named(request.stop_strings)),
        min_p=request.min_p,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=biases,
        min_tokens=request.min_tokens,
        logprobs=request.wants_logprobs is not None,
        top_logprobs=request.wants_logprobs or 0,
        prompt_logprobs=request.wants_logprobs is not None and request.wants_echo,
    )
