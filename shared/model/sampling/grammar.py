"""Makes output conform to a grammar, with llguidance."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from time import thread_time

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedTokenizerFast

from shared.errors import InvalidFieldError
from shared.model.sampling.grammar_size import check_size
from shared.model.sampling.grammar_trial import GrammarTrials, Trial, matcher_of
from shared.model.sampling.logits_processors import LogitsProcessor
from shared.sampling_params import MAX_GRAMMAR_CHARACTERS, Grammar

STEP_SECONDS = 0.5  # of CPU time, for a mask
UNICODE_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
MAX_BYTES = 2**28  # of a compiled grammar, and of all that are kept


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
        """Advance past these tokens. Raises InvalidFieldError if they do not conform, or if that takes too long."""
        with self._timed():
            conform = self._matcher.consume_tokens(list(token_ids))
        if not conform:
            raise InvalidFieldError(self._kind, self._matcher.get_error())

    def forced(self) -> list[int]:
        """Return tokens that are certain to come next: the mask of each allows no other one."""
        return self._matcher.compute_ff_tokens()

    def pop(self, token_ids: Sequence[int]) -> None:
        """Go back to before these tokens."""
        self._matcher.rollback(len(token_ids))

    def process(self, scores: torch.Tensor) -> None:
        """Forbid what the grammar does not allow, unless something else has forbidden everything that it allows.

        Raises InvalidFieldError for a grammar that grew too complex, or takes too long.
        """
        with self._timed():
            mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise InvalidFieldError(self._kind, self._matcher.get_error())
        bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=len(scores), bitorder="little")
        allowed, values = bits.view(np.bool_), scores.numpy()  # [V]; numpy is faster than torch here
        values[~allowed] = -np.inf
        if not (values > -np.inf).any():
            values[allowed] = 0

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Raise InvalidFieldError if the block was too slow to be run again: other sessions wait for it."""
        started = thread_time()
        yield
        if thread_time() - started > STEP_SECONDS:
            raise InvalidFieldError(self._kind, f"takes more than {STEP_SECONDS:g} s for a token")


class Grammars:
    """Compiles grammars for one model's tokenizer, and keeps those used last. Takes CPU time: call it in a thread.

    A thread that compiles needs a `large_stack`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, vocab_size: int, end_ids: Sequence[int], seconds: float = 10
    ) -> None:
        """Compile for rows of `vocab_size` logits; any of `end_ids` may follow a complete text.

        A grammar that takes longer than `seconds` is refused.
        """
        self._tokenizer = _plain(tokenizer.backend_tokenizer.to_str())
        self._vocab_size, self._end_ids = vocab_size, end_ids
        self._trials = GrammarTrials(self._tokenizer, vocab_size, end_ids, seconds)
        self._kept: dict[Grammar, tuple[LLMatcher, int]] = {}  # and how many bytes each takes; used last comes last
        self._keeping = Lock()

    def kept(self, grammar: Grammar) -> LLMatcher | None:
        """Return a matcher in its initial state, if the grammar has been compiled a short while ago; in any thread."""
        with self._keeping:
            if not (kept := self._kept.pop(grammar, None)):
                return None
            self._kept[grammar] = kept
            return kept[0]

    def compile(self, grammar: Grammar) -> LLMatcher:
        """Return a matcher in its initial state. Raises InvalidFieldError for a grammar that cannot be compiled."""
        if kept := self.kept(grammar):  # since when it waited for a thread
            return kept
        if len(grammar.text) > MAX_GRAMMAR_CHARACTERS:
            raise InvalidFieldError(grammar.kind, f"{len(grammar.text)} characters, at most {MAX_GRAMMAR_CHARACTERS}")
        check_size(grammar)
        trial = self._trials.run(grammar.kind, grammar.text)
        if trial.num_bytes > MAX_BYTES:
            trial = Trial(problem=f"takes {trial.num_bytes >> 20} MB when compiled, at most {MAX_BYTES >> 20}")
        if trial.problem:
            raise InvalidFieldError(grammar.kind, trial.problem)
        matcher = matcher_of(self._vocabulary, trial.written)
        self._keep(grammar, matcher, trial.num_bytes + 2**16)
        return matcher

    @cached_property
    def _vocabulary(self) -> LLTokenizer:  # about a second for 150,000 tokens
        return LLTokenizer(self._tokenizer, n_vocab=self._vocab_size, eos_token=list(self._end_ids))

    def _keep(self, grammar: Grammar, matcher: LLMatcher, num_bytes: int) -> None:
        with self._keeping:
            self._kept[grammar] = matcher, num_bytes
            while sum(size for _, size in self._kept.values()) > MAX_BYTES:
                del self._kept[next(iter(self._kept))]


def _plain(tokenizer: str) -> str:
    """Return a tokenizer, written as JSON, that leaves characters as they are, as llguidance's masks do."""
    whole = json.loads(tokenizer)
    normalizer = whole["normalizer"] or {}
    steps = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    if all(step.get("type") not in UNICODE_FORMS for step in steps):
        return tokenizer
    kept = [step for step in steps if step["type"] not in UNICODE_FORMS]
    whole["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    return json.dumps(whole)
