"""Proposes what earlier sequences said after the same tokens."""

from collections.abc import Sequence

from draft_service.memory import Memory
from draft_service.ngram_index import MAX_MATCH
from draft_service.proposer import Guess, Lookup


class Recall(Lookup):
    """Looks the end of the sequence up in the memory of its namespace, and leaves there what it says."""

    def __init__(self, memory: Memory, namespace: str, token_ids: Sequence[int], output_start: int) -> None:
        """Begin with these tokens, of which those from `output_start` on are said and the ones before were given."""
        self._memory, self._namespace = memory, namespace
        self._said = list(token_ids[max(0, output_start - MAX_MATCH) :])  # what was asked last tells how it begins
        self._has_grown = False

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens."""
        self._said.extend(token_ids)
        self._has_grown |= len(token_ids) > 0

    def guess(self, num_tokens: int) -> Guess:
        """Return at most `num_tokens` draft tokens."""
        said = self._memory.of(self._namespace)
        return said.guess(self._said[-MAX_MATCH:], num_tokens) if said else Guess()

    async def close(self) -> None:
        """Leave what was said in the memory, unless this session heard none of it: then an earlier one left it."""
        if self._has_grown:
            await self._memory.add(self._namespace, self._said)
