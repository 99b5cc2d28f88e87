"""Makes the choices to decode of a request."""

import secrets
from collections.abc import Sequence

from gateway.choices import Choice
from gateway.decoder import Decoder
from gateway.errors import ContextLengthError, ModelNotFoundError
from gateway.schemas import ChatRequest, CompletionRequest, GenerationRequest
from gateway.settings import GatewaySettings
from gateway.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.sampling_params import SamplingParams
from shared.seeds import choice_seed

COMPLETION_MAX_TOKENS = 16  # OpenAI's default; a chat's default is what is left of the context


class Planner:
    """Knows the model's limits and the settings' defaults. Its methods take CPU time: call them in a thread.

    They raise InvalidFieldError, ContextLengthError and ModelNotFoundError.
    """

    def __init__(self, decoder: Decoder, tokenizer: ChatTokenizer, settings: GatewaySettings) -> None:
        """Plan for this decoder."""
        self._decoder, self._tokenizer, self._settings = decoder, tokenizer, settings

    def chat(self, request: ChatRequest) -> list[Choice]:
        """Return the n choices of a chat."""
        self.check_model(request.model)
        return self._choices(request, "messages", [self._tokenizer.encode_chat(request.messages)], default=None)

    def completion(self, request: CompletionRequest) -> list[Choice]:
        """Return the choices of a completion: n for the first prompt, then n for the next."""
        self.check_model(request.model)
        prompts = [prompt if isinstance(prompt, list) else self._tokenizer.encode(prompt) for prompt in request.prompts]
        return self._choices(request, "prompt", prompts, default=COMPLETION_MAX_TOKENS)

    def check_model(self, name: str) -> None:
        """Raise ModelNotFoundError unless this is the model."""
        if name != self._settings.model_name:
            raise ModelNotFoundError(name)

    def _choices(
        self, request: GenerationRequest, field: str, prompts: Sequence[list[int]], default: int | None
    ) -> list[Choice]:
        k = self._num_draft_tokens(request)
        # No more bits than a JavaScript client reads back exactly.
        seed = request.seed if request.seed is not None else secrets.randbits(53)
        return [
            Choice(
                index=prompt_index * request.n + index,
                prompt_ids=prompt_ids,
                params=SamplingParams(
                    temperature=request.temperature,
                    top_p=request.top_p,
                    top_k=max(request.top_k, 0),
                    # By the index among its prompt's own: a prompt's replies do not depend on the prompts beside it.
                    seed=choice_seed(seed, index),
                    stop_token_ids=self._tokenizer.stop_token_ids,
                ),
                max_tokens=self._max_tokens(request, field, prompt_ids, default),
                k=k,
                stop_strings=request.stop_strings,
            )
            for prompt_index, prompt_ids in enumerate(prompts)
            for index in range(request.n)
        ]

    def _num_draft_tokens(self, request: GenerationRequest) -> int:
        most, asked = self._decoder.max_draft_tokens, request.speculative.k
        if asked is not None and asked > most:
            raise InvalidFieldError("speculative.k", f"{asked} is more than {most}, the most that the target verifies")
        if not request.speculative.enabled:
            return 0
        return asked if asked is not None else min(self._settings.default_k, most)

    def _max_tokens(self, request: GenerationRequest, field: str, prompt_ids: list[int], default: int | None) -> int:
        target = self._decoder.target
        if not prompt_ids:
            raise InvalidFieldError(field, "has no tokens")
        if min(prompt_ids) < 0 or max(prompt_ids) >= target.vocab_size:
            raise InvalidFieldError(field, f"a token id is not within 0 to {target.vocab_size - 1}")
        room = target.max_length - len(prompt_ids)
        if room <= 0:
            problem = f"{len(prompt_ids)} tokens leave no room for a reply in the context of {target.max_length}"
            raise ContextLengthError(field, problem)
        limit_field, limit = request.limit
        if limit is None:
            return room if default is None else min(default, room)
        if limit > room:
            problem = f"{limit}, with a prompt of {len(prompt_ids)} tokens, is above the context of {target.max_length}"
            raise ContextLengthError(limit_field, problem)
        return limit
