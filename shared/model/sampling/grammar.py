"""Makes output conform to a grammar, with llguidance."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import llguidance
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedTokenizerFast

from shared.errors import InvalidFieldError
from shared.model.sampling.logits_processors import LogitsProcessor
from shared.sampling_params import JSON_WHITESPACE, Grammar

_WRITERS: dict[str, Callable[[str], str]] = {
    "json_schema": lambda text: LLMatcher.grammar_from_json_schema(
        text, defaults={"whitespace_pattern": JSON_WHITESPACE}
    ),
    "regex": LLMatcher.grammar_from_regex,
    "lark": lambda text: llguidance.grammar_from("grammar", text),  # accepts GBNF too
}


class GrammarMask(LogitsProcessor):
    """Forbids what the grammar does not allow next. Its state covers the committed tokens only."""

    def __init__(self, kind: str, matcher: LLMatcher) -> None:
        """Begin in the grammar's initial state; errors name its kind."""
        self._kind = kind
        self._matcher = matcher.deep_copy()

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self._matcher.is_stopped()

    def push(self, token_ids: Sequence[int]) -> None:
        """Advance past these tokens. Raises InvalidFieldError if they do not conform."""
        if not self._matcher.consume_tokens(list(token_ids)):
            raise InvalidFieldError(self._kind, self._matcher.get_error())

    def pop(self, token_ids: Sequence[int]) -> None:
        """Go back to before these tokens."""
        self._matcher.rollback(len(token_ids))

    def process(self, scores: torch.Tensor) -> None:
        """Forbid what the grammar does not allow, unless something else has forbidden everything that it allows.

        Raises InvalidFieldError for a grammar that grew too complex.
        """
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise InvalidFieldError(self._kind, self._matcher.get_error())
        bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=len(scores), bitorder="little")
        allowed = torch.from_numpy(bits).bool()  # [V]
        if not (scores[allowed] > -torch.inf).any():
            scores[allowed] = 0
        scores[~allowed] = -torch.inf


class Grammars:
    """Compiles grammars for one model's tokenizer. Takes CPU time: call it in a thread."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab_size: int, end_ids: Sequence[int]) -> None:
        """Compile for rows of `vocab_size` logits; any of `end_ids` may follow a complete text."""
        self._tokenizer, self._vocab_size, self._end_ids = tokenizer, vocab_size, end_ids
        self.compile = lru_cache(maxsize=128)(self._compile)

    @cached_property
    def _vocabulary(self) -> LLTokenizer:  # about a second for 150,000 tokens
        tokenizer = self._tokenizer.backend_tokenizer.to_str()
        return LLTokenizer(tokenizer, n_vocab=self._vocab_size, eos_token=list(self._end_ids))

    def _compile(self, grammar: Grammar) -> LLMatcher:
        """Return a matcher in its initial state. Raises InvalidFieldError for an invalid grammar."""
        try:
            matcher = LLMatcher(self._vocabulary, _WRITERS[grammar.kind](grammar.text), log_level=0)
        except ValueError as error:
            raise InvalidFieldError(grammar.kind, str(error)) from error
        if matcher.is_error():
            raise InvalidFieldError(grammar.kind, matcher.get_error())
        return matcher
