"""What earlier sequences said, which later ones may say again."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from itertools import islice

from draft_service.ngram_index import NgramIndex
from draft_service.proposer import Guess
from shared.namespace import owner_of
from shared.pb import specdec_pb2 as pb

PARTS = 4  # of a namespace's text: when the newest is full, the oldest is forgotten
MIN_PROBABILITY = 0.1  # of a guess to be followed further: vLLM's `suffix_decoding_min_token_prob`
MAX_PLACES = 32  # that a search looks at, latest first: bounds its cost
MAX_LENGTHS = 4  # of matches that are tried, the longest first
MAX_NAMESPACES = 1024
SLICE = 500  # tokens that are taken in at a time, which takes less than a millisecond
END = -1  # what stands before each sequence, and is no token

Place = tuple[Sequence[int], int]  # a text, and where in it a guess begins


class Said:
    """What the sequences of one namespace said, the oldest of it forgotten above `max_tokens`.

    Suffix decoding (Oliaro et al., arXiv 2411.04975): of all places where the sequence's last tokens stand, follow the
    token that comes next most often; a guess is no longer than its match, and its score is how many of its tokens
    these frequencies let expect. In the place of a suffix tree there are hash chains, of whose places the latest
    count. What is said again is stored again, so what goes first is what was used longest ago.
    """

    def __init__(self, min_match: int, max_tokens: int) -> None:
        """Begin with nothing; matches of fewer than `min_match` tokens are not found."""
        self._min_match, self._part_tokens = min_match, max(1, max_tokens // PARTS)
        self._parts = deque([NgramIndex(min_match)], PARTS)

    def __len__(self) -> int:
        """Return how many tokens are held."""
        return sum(len(part.text) for part in self._parts)

    async def add(self, token_ids: Sequence[int]) -> None:
        """Take in a sequence, of which the end counts if it is very long; meanwhile others may guess, but not add."""
        token_ids = token_ids[-(self._part_tokens - 1) :] if self._part_tokens > 1 else []
        if len(self._parts[-1].text) + len(token_ids) >= self._part_tokens:
            self._parts.append(NgramIndex(self._min_match))
        self._parts[-1].extend([END])
        for start in range(0, len(token_ids), SLICE):
            self._parts[-1].extend(token_ids[start : start + SLICE])
            await asyncio.sleep(0)

    def guess(self, sequence: Sequence[int], num_tokens: int) -> Guess:
        """Return the likeliest continuation, of at most `num_tokens`; empty if there is none."""
        matches = ((part.text, match) for part in reversed(self._parts) for match in part.matches(sequence))
        found = [(match.length, (text, match.end)) for text, match in islice(matches, MAX_PLACES)]
        guesses = (
            _likeliest([place for length, place in found if length >= least], min(num_tokens, least), least)
            for least in islice(sorted({length for length, _ in found}, reverse=True), MAX_LENGTHS)
        )
        return max(guesses, key=lambda guess: guess.score, default=Guess())


class Memory:
    """What was said in each namespace; above `max_tokens` in all, the one that was used longest ago is forgotten.

    Those of a key that has more than its share go first: no number of salts pushes out what is another key's.
    """

    def __init__(self, min_match: int, namespace_tokens: int, max_tokens: int) -> None:
        """Remember up to so many tokens of a namespace; 0 remembers nothing."""
        self._min_match, self._namespace_tokens, self._max_tokens = min_match, namespace_tokens, max_tokens
        self._said = OrderedDict[str, Said]()  # the last used one last
        self._num_tokens = Counter[str]()  # by owner
        self._adding = asyncio.Lock()

    def of(self, namespace: str) -> Said | None:
        """Return what was said in this namespace, if anything."""
        if namespace in self._said:
            self._said.move_to_end(namespace)
        return self._said.get(namespace)

    async def add(self, namespace: str, token_ids: Sequence[int]) -> None:
        """Take in what a sequence of this namespace said, with pauses, so that nothing waits for it."""
        if not self._namespace_tokens or len(token_ids) <= self._min_match:
            return
        async with self._adding:
            said = self.of(namespace) or self._said.setdefault(namespace, Said(self._min_match, self._namespace_tokens))
            num_before = len(said)
            try:
                await said.add(token_ids)
            finally:
                self._num_tokens[owner_of(namespace)] += len(said) - num_before
                self._forget()

    def _forget(self) -> None:
        """Forget what is too much."""
        while len(self._said) > MAX_NAMESPACES:
            self._forget_one(Counter(map(owner_of, self._said)), MAX_NAMESPACES, 1)
        while self._num_tokens.total() > self._max_tokens:
            self._forget_one(self._num_tokens, self._max_tokens, self._namespace_tokens)

    def _forget_one(self, held: Counter[str], most: int, allowed: int) -> None:
        """Forget the longest unused namespace, if there is one of an owner that holds more than its part of `most`.

        A part is at least what is allowed to one namespace, so that who sends no salts loses nothing to who does.
        """
        share = max(most / len(+held), allowed)
        whose = next((one for one in self._said if held[owner_of(one)] > share), next(iter(self._said)))
        self._num_tokens[owner_of(whose)] -= len(self._said.pop(whose))
        self._num_tokens = +self._num_tokens


def _likeliest(places: Sequence[Place], num_tokens: int, match: int) -> Guess:
    """Follow from these places the token that comes next most often; of equals, the latest."""
    total, token_ids, score = len(places), list[int](), 0.0
    while len(token_ids) < num_tokens:
        depth = len(token_ids)
        following = [(text[end + depth], (text, end)) for text, end in places if end + depth < len(text)]
        [(token_id, count)] = Counter(token for token, _ in following).most_common(1) or [(END, 0)]
        if token_id == END or count < MIN_PROBABILITY * total:
            break
        token_ids.append(token_id)
        score += count / total
        places = [place for token, place in following if token == token_id]
    return Guess(pb.PROPOSER_MEMORY, token_ids, match, score)
