"""Turns a request into the choices to decode."""

import secrets
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from gateway.generation.choice import Choice
from gateway.generation.errors import ContextLengthError, ModelNotFoundError
from gateway.generation.seeds import choice_seed
from gateway.parsing.reply_plan import ReplyPlan
from gateway.requests.chat import ChatRequest
from gateway.requests.completion import CompletionRequest
from gateway.requests.generation import GenerationRequest
from gateway.requests.responses import CHAT_FIELDS, ResponsesRequest
from gateway.requests.sampling_fields import Speculative
from gateway.requests.tokenization import TokenizeRequest
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

COMPLETION_MAX_TOKENS = 16  # OpenAI's default; a chat's default is the rest of the context


class Planner:
    """Knows the model's limits and the settings' defaults. Its methods take CPU time: call them in a thread.

    They raise InvalidFieldError, ContextLengthError and ModelNotFoundError.
    """

    def __init__(self, target: pb.ModelInfo, tokenizer: ChatTokenizer, settings: GatewaySettings) -> None:
        """Plan for this target."""
        self._target, self._tokenizer, self._settings = target, tokenizer, settings

    def chat(self, request: ChatRequest) -> list[Choice]:
        """Return the n choices of a chat."""
        self.check_model(request.model)
        prompt = self._tokenizer.render_chat(request.messages, request.offered, request.chat_template_kwargs)
        plan = ReplyPlan.of(self._tokenizer, prompt, request)
        prompts = [self._tokenizer.encode(prompt, add_special_tokens=False)]
        predicted = request.prediction.text if request.prediction else ""
        predicted_ids = self._tokenizer.encode(predicted, add_special_tokens=False)
        choices = self._choices(request, "messages", prompts, plan, default=None)
        return [replace(choice, predicted_ids=predicted_ids) for choice in choices]

    def response(self, request: ResponsesRequest) -> Choice:
        """Return the one choice of a response."""
        try:
            [choice] = self.chat(request.chat)
        except InvalidFieldError as error:
            field = CHAT_FIELDS.get(error.field, error.field)
            raise type(error)(field, error.problem) from error
        return replace(choice, grammar_field=CHAT_FIELDS.get(choice.grammar_field, choice.grammar_field))

    def completion(self, request: CompletionRequest) -> list[Choice]:
        """Return the choices of a completion: n for the first prompt, then n for the next."""
        self.check_model(request.model)
        prompts = [prompt if isinstance(prompt, list) else self._tokenizer.encode(prompt) for prompt in request.prompts]
        echoes = request.prompts if request.echo else ()
        plan = ReplyPlan.plain(request)
        return self._choices(request, "prompt", prompts, plan, default=COMPLETION_MAX_TOKENS, echoes=echoes)

    def tokenize(self, request: TokenizeRequest) -> list[int]:
        """Return the token ids of a text or a chat."""
        self.check_model(request.model or self._settings.model_name)
        if request.messages:
            return self._tokenizer.encode_chat(request.messages)
        return self._tokenizer.encode(request.prompt or "", add_special_tokens=request.add_special_tokens)

    def check_model(self, name: str) -> None:
        """Raise ModelNotFoundError unless this is the model."""
        if name != self._settings.model_name:
            raise ModelNotFoundError(name)

    def _choices(
        self,
        request: GenerationRequest,
        field: str,
        prompts: Sequence[list[int]],
        plan: ReplyPlan,
        *,
        default: int | None,
        echoes: Sequence[str | list[int]] = (),
    ) -> list[Choice]:
        params = replace(self._params(request), grammar=plan.grammar)
        k = self._num_tokens(request.speculative, "model", self._settings.default_k)
        num_lookup_tokens = self._num_tokens(request.speculative, "lookup", self._settings.default_lookup_tokens)
        limits = [self._max_tokens(request, field, prompt_ids, default) for prompt_ids in prompts]
        return [
            Choice(
                index=prompt_index * request.n + index,
                prompt_ids=prompt_ids,
                # By the index within its prompt, so that a prompt's replies do not depend on the other prompts.
                params=replace(params, seed=choice_seed(params.seed, index)),
                max_tokens=limits[prompt_index],
                k=k,
                num_lookup_tokens=num_lookup_tokens,
                stop_strings=request.stop_strings,
                include_stop=request.include_stop_str_in_output,
                form=plan.form,
                grammar_field=plan.grammar_field,
                echo=self._text(echoes[prompt_index]) if echoes else "",
                first=index == 0,
            )
            for prompt_index, prompt_ids in enumerate(array("i", token_ids) for token_ids in prompts)
            for index in range(request.n)
        ]

    def _text(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)

    def _params(self, request: GenerationRequest) -> SamplingParams:
        biases = {int(token_id): bias for token_id, bias in request.logit_bias.items()}
        if biases and max(biases) >= self._target.vocab_size:
            raise InvalidFieldError("logit_bias", f"{max(biases)} is no token of the model")
        ends = frozenset() if request.ignore_eos else self._tokenizer.stop_token_ids
        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=max(request.top_k, 0),
            # No more bits than a JavaScript client reads back exactly.
            seed=request.seed if request.seed is not None else secrets.randbits(53),
            stop_token_ids=ends.union(request.stop_token_ids),
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

    def _num_tokens(self, speculative: Speculative, proposer: str, default: int | Literal["auto"]) -> int | None:
        """Return how many draft tokens this proposer makes in a round; None means as many as pay."""
        limit, asked = self._target.max_draft_tokens, speculative.k
        if asked is not None and asked > limit:
            raise InvalidFieldError("speculative.k", f"{asked} is more than {limit}, the most that the target verifies")
        if not speculative.enabled or speculative.proposer not in {"auto", proposer}:
            return 0
        if asked is not None:
            return asked
        return None if default == "auto" else min(default, limit)

    def _max_tokens(self, request: GenerationRequest, field: str, prompt_ids: list[int], default: int | None) -> int:
        target = self._target
        if not prompt_ids:
            raise InvalidFieldError(field, "has no tokens")
        if min(prompt_ids) < 0 or max(prompt_ids) >= target.vocab_size:
            raise InvalidFieldError(field, f"a token id is not within 0 to {target.vocab_size - 1}")
        room = target.max_length - len(prompt_ids)
        if room <= 0:
            problem = f"{len(prompt_ids)} tokens leave no room for a reply in the context of {target.max_length}"
            raise ContextLengthError(field, problem)
        limit_field, limit = request.limit
        if limit == 0 and not request.wants_echo:
            raise InvalidFieldError(limit_field, "is 0, and there is no echo")
        if limit is not None and request.min_tokens > limit:
            raise InvalidFieldError("min_tokens", f"{request.min_tokens} is more than {limit_field}, {limit}")
        if limit is None:
            return room if default is None else min(default, room)
        if limit > room:
            problem = f"{limit}, with a prompt of {len(prompt_ids)} tokens, is above the context of {target.max_length}"
            raise ContextLengthError(limit_field, problem)
        return limit
