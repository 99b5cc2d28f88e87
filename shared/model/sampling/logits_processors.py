"""Changes that a request makes to a row's logits, given the tokens before it."""

from collections import Counter
from collections.abc import Collection, Sequence

import torch

from shared.sampling_params import SamplingParams


class LogitsProcessor:
    """Changes the logits of one row at a time. Its history is the tokens pushed and not popped."""

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return False

    def forced(self) -> list[int]:
        """Return tokens that are certain to come next, since no other ones are allowed."""
        return []

    def process(self, scores: torch.Tensor) -> None:
        """Change the logits of the next token in place. scores: [V] float32."""
        raise NotImplementedError

    def push(self, token_ids: Sequence[int]) -> None:
        """Append tokens of the output to the history."""

    def pop(self, token_ids: Sequence[int]) -> None:
        """Remove these tokens from the end of the history."""


class Bias(LogitsProcessor):
    """Adds to the logits of some tokens."""

    def __init__(self, params: SamplingParams) -> None:
        """Read `logit_bias`."""
        self._token_ids = torch.tensor(list(params.logit_bias))  # [N]
        self._values = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)  # [N]

    def process(self, scores: torch.Tensor) -> None:
        """Add the biases."""
        known = _within(self._token_ids, scores)
        scores[self._token_ids[known]] += self._values[known]


class MinTokens(LogitsProcessor):
    """Forbids stop tokens until there is enough output."""

    def __init__(self, params: SamplingParams) -> None:
        """Read `min_tokens` and `stop_token_ids`."""
        self._missing = params.min_tokens
        self._token_ids = torch.tensor(sorted(params.stop_token_ids))  # [N]

    def push(self, token_ids: Sequence[int]) -> None:
        """Count the tokens."""
        self._missing -= len(token_ids)

    def pop(self, token_ids: Sequence[int]) -> None:
        """Count them no more."""
        self._missing += len(token_ids)

    def process(self, scores: torch.Tensor) -> None:
        """Forbid."""
        if self._missing > 0:
            scores[self._token_ids[_within(self._token_ids, scores)]] = -torch.inf


class Penalties(LogitsProcessor):
    """Makes tokens that are already in the output, or in the prompt, less (or more) likely.

    As in vLLM: the repetition penalty, for prompt and output, comes before the two penalties for the output alone.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Collection[int]) -> None:
        """Read the three penalties."""
        self._params = params
        self._prompt = frozenset(prompt_ids)
        self._output: Counter[int] = Counter()

    def push(self, token_ids: Sequence[int]) -> None:
        """Count the tokens."""
        self._output.update(token_ids)

    def pop(self, token_ids: Sequence[int]) -> None:
        """Count them no more."""
        self._output -= Counter(token_ids)  # drops tokens whose count reaches 0

    def process(self, scores: torch.Tensor) -> None:
        """Apply the penalties."""
        params = self._params
        if params.repetition_penalty != 1:
            seen = torch.tensor([*self._prompt, *(self._output.keys() - self._prompt)])  # [N], each once
            before = scores[seen]
            factor = params.repetition_penalty
            scores[seen] = torch.where(before > 0, before / factor, before * factor)
        if self._output:
            counts = torch.tensor(list(self._output.values()), dtype=torch.float32)  # [N]
            scores[torch.tensor(list(self._output))] -= params.frequency_penalty * counts + params.presence_penalty


def logits_processors(params: SamplingParams, prompt_ids: Collection[int]) -> list[LogitsProcessor]:
    """Return the processors that the request needs in addition to its grammar's, in the order in which they apply."""
    processors: list[LogitsProcessor] = []
    if params.logit_bias:
        processors.append(Bias(params))
    if params.min_tokens and params.stop_token_ids:
        processors.append(MinTokens(params))
    if params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1:
        processors.append(Penalties(params, prompt_ids))
    return processors


def _within(token_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return which tokens the model has: two models with one tokenizer may differ in padding rows. Both [N]."""
    return (token_ids >= 0) & (token_ids < len(scores))
