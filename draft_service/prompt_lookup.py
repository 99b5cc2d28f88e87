"""Proposes what followed the same tokens earlier in the text."""

from collections.abc import Sequence

from draft_service.ngram_index import NgramIndex
from draft_service.proposer import Guess, Lookup
from shared.pb import specdec_pb2 as pb


class PromptLookup(Lookup):
    """Finds the longest end of the sequence that also occurs earlier in it, and proposes what followed there.

    Prompt lookup (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding; vLLM's `ngram` proposer), over prompt and
    reply. A proposal is no longer than its match, as in suffix decoding (Oliaro et al., arXiv 2411.04975): a longer
    match is more often right.
    """

    def __init__(self, prompt_ids: Sequence[int], min_match: int) -> None:
        """Search the prompt and what is committed after it for matches of at least `min_match` tokens."""
        self._index = NgramIndex(min_match, prompt_ids)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens."""
        self._index.extend(token_ids)

    def guess(self, num_tokens: int) -> Guess:
        """Return at most `num_tokens` draft tokens."""
        match = self._index.find(self._index.text)
        if not match:
            return Guess()
        num_tokens = min(num_tokens, match.length)
        found = self._index.text[match.end : match.end + num_tokens]
        # Where the text repeats itself, the copy runs into its own beginning, as in LZ77.
        token_ids = [found[i % len(found)] for i in range(num_tokens)]
        return Guess(pb.PROPOSER_PROMPT_LOOKUP, token_ids, match.length, num_tokens)
