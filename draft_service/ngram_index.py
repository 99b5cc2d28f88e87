"""Finds where the last tokens of a sequence occur in a text."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MAX_MATCH = 64  # a longer match tells no more
MAX_CANDIDATES = 64  # occurrences that a search looks at, latest first: bounds its cost


@dataclass(frozen=True)
class Match:
    """The last `length` tokens of a sequence equal those just before `end` in the text."""

    length: int
    end: int


class NgramIndex:
    """A text that grows at its end, and where each n-gram occurs in it.

    Hash chains as in LZ77 compressors (zlib's longest_match): the occurrences of an n-gram are linked from the latest
    to the first, so that adding a token is one step and the cost of a search is bounded, however long the text. A token
    takes about 130 bytes.
    """

    def __init__(self, n: int, token_ids: Sequence[int] = ()) -> None:
        """Index these tokens; matches shorter than n are not found."""
        self.text = array("i")
        self._n = n
        self._latest: dict[int, int] = {}  # by an n-gram's hash: the end of its latest occurrence
        self._earlier = array("i")  # by end - 1: the end of the occurrence before it, 0 if there is none
        self.extend(token_ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        """Append tokens to the text."""
        for token_id in token_ids:
            self.text.append(token_id)
            ngram = hash(tuple(self.text[-self._n :]))
            self._earlier.append(self._latest.get(ngram, 0))
            self._latest[ngram] = len(self.text)

    def find(self, sequence: Sequence[int]) -> Match | None:
        """Return the longest match of the sequence's end that has a token after it; on a tie, the latest."""
        best = self.longest(sequence, self._occurrences(sequence))
        return best if best.length >= self._n else None

    def matches(self, sequence: Sequence[int]) -> Iterator[Match]:
        """Yield the matches of the sequence's end that have a token after them, the latest first."""
        for end in self._occurrences(sequence):
            length = self._match_length(sequence, end)
            if length >= self._n:
                yield Match(length, end)

    def longest(self, sequence: Sequence[int], ends: Iterable[int]) -> Match:
        """Return the longest match of the sequence's end before one of `ends`; on a tie, the first."""
        best = Match(0, 0)
        for end in ends:
            length = self._match_length(sequence, end)
            if length > best.length:
                best = Match(length, end)
            if length == MAX_MATCH:
                break
        return best

    def _occurrences(self, sequence: Sequence[int]) -> Iterator[int]:
        """Yield the ends of what are probably the sequence's last n tokens: another n-gram may have the same hash."""
        end = self._latest.get(hash(tuple(sequence[-self._n :])), 0)
        for _ in range(MAX_CANDIDATES):
            if not end:
                return
            if end < len(self.text):
                yield end
            end = self._earlier[end - 1]

    def _match_length(self, sequence: Sequence[int], end: int) -> int:
        longest = min(end, len(sequence), MAX_MATCH)
        return next((i for i in range(longest) if self.text[end - 1 - i] != sequence[-1 - i]), longest)
