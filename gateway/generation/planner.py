"""Turns a request into the choices to decode."""

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from gateway.generation.choice import Choice
from gateway.generation.errors import ContextLengthError, ModelNotFoundError
from gateway.generation.fim_prompts import FimPrompts
from gateway.generation.prompts import Prompts
from gateway.generation.sampling import sampling_params
from gateway.generation.seeds import choice_seed
from gateway.parsing.reply_plan import ReplyPlan
from gateway.requests.chat import ChatRequest
from gateway.requests.completion import CompletionRequest
from gateway.requests.generation import GenerationRequest
from gateway.requests.infill import INFILL_FIELDS, InfillRequest
from gateway.requests.messages import MESSAGES_FIELDS, CountTokensRequest, MessagesRequest
from gateway.requests.responses import CHAT_FIELDS, ResponsesRequest
from gateway.requests.sampling_fields import Speculative
from gateway.requests.tokenization import DetokenizeRequest, TokenizeRequest
from gateway.requests.translation import Names, renamed
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import MAX_GRAMMAR_CHARACTERS

COMPLETION_MAX_TOKENS = 16  # OpenAI's default; a chat's is the rest of the context, or what MAX_LOGPROBS allows
MIN_MIDDLE = 128  # tokens that other files leave for one whose length nobody asked for
MAX_PROMPT_TOKENS = 2**20  # of all prompts of a completion
MAX_ECHO = 2**20  # characters that a reply repeats of the request
MAX_PROMPT_IDS = 2**18  # that a reply repeats
MAX_LOGPROBS = 100_000  # of a reply, which are a few megabytes


class Planner:
    """Knows the model's limits and the settings' defaults. Its methods take CPU time: call them in a thread.

    They raise InvalidFieldError, ContextLengthError and ModelNotFoundError.
    """

    def __init__(self, target: pb.ModelInfo, tokenizer: ChatTokenizer, settings: GatewaySettings) -> None:
        """Plan for this target."""
        self._target, self._tokenizer, self._settings = target, tokenizer, settings
        self._prompts = Prompts(target, tokenizer)
        self._fim_prompts = FimPrompts(target, tokenizer, self._prompts)

    def chat(self, request: ChatRequest, prefill: str = "") -> list[Choice]:
        """Return the n choices of a chat whose replies go on from `prefill`."""
        self.check_model(request.model)
        prompt = self._prompts.chat(request, self._target.max_length) + prefill
        prompts = [self._prompts.encode("messages", prompt, special=False)]
        plan = ReplyPlan.of(self._tokenizer, prompt, request, self._settings.tool_format)
        predicted_ids = (
            self._prompts.encode("prediction", request.prediction.text, special=False) if request.prediction else []
        )
        each = _num_logprobs(request)
        default = MAX_LOGPROBS // each if each else self._target.max_length
        choices = self._choices(request, "messages", prompts, plan, default=default)
        return [replace(choice, predicted_ids=predicted_ids) for choice in choices]

    def response(self, request: ResponsesRequest) -> Choice:
        """Return the one choice of a response."""
        for field in ("tools", "text"):
            if len(request.model_dump_json(include={field})) > MAX_ECHO:
                raise InvalidFieldError(field, f"is longer than {MAX_ECHO} bytes, and the response repeats it")
        with renamed(CHAT_FIELDS):
            [choice] = self.chat(request.chat)
        return _renamed(choice, CHAT_FIELDS)

    def messages(self, request: MessagesRequest) -> Choice:
        """Return the one choice of a message."""
        with renamed(MESSAGES_FIELDS):
            [choice] = self.chat(request.chat, request.prefill)
        return _renamed(choice, MESSAGES_FIELDS)

    def count(self, request: CountTokensRequest) -> int:
        """Return how many tokens the prompt of a message has: more than the context holds, if not very many."""
        self.check_model(request.model)
        at_most = max(self._target.max_length, self._settings.max_json_values)
        prompt = self._prompts.chat(request.chat, at_most) + request.prefill
        return len(self._prompts.encode("messages", prompt, at_most, special=False))

    def completion(self, request: CompletionRequest) -> list[Choice]:
        """Return the choices of a completion: n for the first prompt, then n for the next."""
        self.check_model(request.model)
        limit = self._settings.max_choices
        if len(request.prompts) * request.n > limit:
            raise InvalidFieldError(
                "prompt", f"{len(request.prompts)} prompts, {request.n} times, are more than {limit}"
            )
        prompts: list[list[int]] = []
        left = max(MAX_PROMPT_TOKENS, self._target.max_length)
        for prompt in request.prompts:
            if request.suffix:
                prompts.append(self._fim_prompts.of(("prompt", "suffix"), prompt, request.suffix))
            else:
                prompts.append(prompt if isinstance(prompt, list) else self._prompts.encode("prompt", prompt))
            left -= len(prompts[-1])
            if left < 0:
                raise InvalidFieldError("prompt", f"has more than {MAX_PROMPT_TOKENS} tokens in all")
        echoes = request.prompts if request.echo else ()
        plan = ReplyPlan.plain(request)
        choices = self._choices(request, "prompt", prompts, plan, default=COMPLETION_MAX_TOKENS, echoes=echoes)
        return self._of_middles(choices, request) if request.suffix else choices

    def infill(self, request: InfillRequest) -> tuple[Choice, str]:
        """Return the one choice of what is missing between a prefix and a suffix, and the text of its prompt."""
        self.check_model(request.model)
        fields, files = ("input_prefix", "input_suffix"), [(one.filename, one.text) for one in request.input_extra]
        prompt = self._fim_prompts.of(fields, request.input_prefix + request.prompt, request.input_suffix)
        reserved = max(request.n_predict, MIN_MIDDLE if request.n_predict < 0 else 0) + 1
        prompt = self._fim_prompts.with_files(prompt, files, reserved)
        with renamed(INFILL_FIELDS):
            completion = request.completion(max(self._target.max_length - len(prompt), 0))
            choices = self._choices(completion, "prompt", [prompt], ReplyPlan.plain(completion), default=0)
        [choice] = self._of_middles(choices, completion)
        return _renamed(choice, INFILL_FIELDS), self._tokenizer.decode(prompt)

    def _of_middles(self, choices: Sequence[Choice], request: GenerationRequest) -> list[Choice]:
        """Return the choices so that they end at any of the tokens that no middle has."""
        ends = self._tokenizer.fim.ends if self._tokenizer.fim and not request.ignore_eos else frozenset()
        params = [replace(one.params, stop_token_ids=one.params.stop_token_ids | ends) for one in choices]
        return [replace(choice, params=one) for choice, one in zip(choices, params, strict=True)]

    def tokenize(self, request: TokenizeRequest) -> list[int]:
        """Return the token ids of a text or a chat. There may be more than the context holds, if not very many."""
        self.check_model(request.model or self._settings.model_names[0])
        at_most = max(self._target.max_length, self._settings.max_json_values)
        if request.messages:
            prompt = self._tokenizer.render_chat(self._prompts.fitting(request.messages, at_most))
            return self._prompts.encode("messages", prompt, at_most, special=False)
        return self._prompts.encode("prompt", request.prompt or "", at_most, special=request.add_special_tokens)

    def detokenize(self, request: DetokenizeRequest) -> str:
        """Return the text of token ids."""
        self.check_model(request.model or self._settings.model_names[0])
        for index, token_id in enumerate(request.tokens):
            if not 0 <= token_id < self._target.vocab_size:
                raise InvalidFieldError(
                    f"tokens.{index}", f"{token_id} is not within 0 to {self._target.vocab_size - 1}"
                )
        return self._tokenizer.decode(request.tokens)

    def check_model(self, name: str) -> None:
        """Raise ModelNotFoundError unless the model is served by this name."""
        if name not in self._settings.model_names and not self._settings.any_model_name:
            raise ModelNotFoundError(name)

    def _choices(
        self,
        request: GenerationRequest,
        field: str,
        prompts: Sequence[list[int]],
        plan: ReplyPlan,
        *,
        default: int,
        echoes: Sequence[str | list[int]] = (),
    ) -> list[Choice]:
        if plan.grammar and len(plan.grammar.text) > MAX_GRAMMAR_CHARACTERS:
            problem = f"is, as a grammar, longer than {MAX_GRAMMAR_CHARACTERS} characters"
            raise InvalidFieldError(plan.grammar_field, problem)
        params = replace(sampling_params(request, self._target.vocab_size, self._tokenizer), grammar=plan.grammar)
        k = self._num_tokens(request.speculative, "model", self._settings.default_k)
        num_lookup_tokens = self._num_tokens(request.speculative, "lookup", self._settings.default_lookup_tokens)
        limits = [self._max_tokens(request, field, prompt_ids, default) for prompt_ids in prompts]
        num_logprobs = (sum(limits) + sum(map(len, prompts if request.wants_echo else ()))) * _num_logprobs(request)
        if num_logprobs > MAX_LOGPROBS:
            name = "top_logprobs" if isinstance(request, ChatRequest) and request.top_logprobs else "logprobs"
            problem = f"asks for up to {num_logprobs} over all tokens and choices; a reply has up to {MAX_LOGPROBS}"
            raise InvalidFieldError(name, problem)
        texts = [self._text(prompt) for prompt in echoes] or [""] * len(prompts)
        if sum(map(len, texts)) * request.n > MAX_ECHO:
            raise InvalidFieldError("echo", f"would repeat more than {MAX_ECHO} characters")
        if request.return_token_ids and sum(map(len, prompts)) * request.n > MAX_PROMPT_IDS:
            raise InvalidFieldError("return_token_ids", f"would repeat more than {MAX_PROMPT_IDS} tokens of prompts")
        return [
            Choice(
                index=prompt_index * request.n + index,
                prompt_ids=prompt_ids,
                # By the index within its prompt, so that a prompt's replies do not depend on the other prompts.
                params=replace(params, seed=choice_seed(params.seed, index)),
                max_tokens=limits[prompt_index],
                cut=limits[prompt_index] < (request.limit[1] or 0),
                k=k,
                num_lookup_tokens=num_lookup_tokens,
                forced=request.speculative.forced,
                memory=request.speculative.memory,
                stop_strings=request.stop_strings,
                include_stop=request.include_stop_str_in_output,
                form=plan.form,
                grammar_field=plan.grammar_field,
                echo=texts[prompt_index],
                first=index == 0,
            )
            for prompt_index, prompt_ids in enumerate(array("i", token_ids) for token_ids in prompts)
            for index in range(request.n)
        ]

    def _text(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)

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

    def _max_tokens(self, request: GenerationRequest, field: str, prompt_ids: list[int], default: int) -> int:
        target = self._target
        if not prompt_ids:
            raise InvalidFieldError(field, "has no tokens")
        room = target.max_length - len(prompt_ids)
        if room <= 0:
            raise self._prompts.no_room(field, f"{len(prompt_ids)} tokens")
        if min(prompt_ids) < 0 or max(prompt_ids) >= target.vocab_size:
            raise InvalidFieldError(field, f"a token id is not within 0 to {target.vocab_size - 1}")
        limit_field, limit = request.limit
        if limit == 0 and not request.wants_echo:
            raise InvalidFieldError(limit_field, "is 0, and there is no echo")
        if limit is not None and request.min_tokens > limit:
            raise InvalidFieldError("min_tokens", f"{request.min_tokens} is more than {limit_field}, {limit}")
        if request.min_tokens > room:
            problem = f"{request.min_tokens} is more than the {room} that the prompt leaves of {target.max_length}"
            raise ContextLengthError("min_tokens", problem)
        return min(default if limit is None else limit, room)


def _renamed(choice: Choice, names: Names) -> Choice:
    """Return the choice so that its grammar's errors name the client's field."""
    return replace(choice, grammar_field=names.get(choice.grammar_field, choice.grammar_field))


def _num_logprobs(request: GenerationRequest) -> int:
    """Return how many log-probabilities the reply has for one token of each of a prompt's choices."""
    return 0 if request.wants_logprobs is None else request.n * (1 + request.wants_logprobs)
