"""What is looked up for one session, and how far that can be relied on."""

from collections import defaultdict
from collections.abc import Sequence

from draft_service.proposer import Guess, Lookup
from shared.pb import specdec_pb2 as pb

EXPECTED = (0.3, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 0.97)  # of a looked-up token to be right, by its match's bit length
MIN_CHECKED = 0.25  # beside others, a row takes a draft up to a quarter of a pass
EXPECTED_WEIGHT = 6.0  # how many tokens that counts for


class Lookups:
    """Guesses by the surest lookup, and keeps a record of how often such guesses were right in this session.

    The record has every guess, sent or not: what the target committed tells. It has no other session's, which may be
    another client's.
    """

    def __init__(self, lookups: Sequence[Lookup]) -> None:
        """Ask all of these."""
        self._lookups = lookups
        self._guess = Guess()
        self._right, self._seen = defaultdict[tuple[int, int], float](float), defaultdict[tuple[int, int], float](float)

    def guess(self, num_tokens: int) -> Guess:
        """Return the guess of a prediction if there is one, else that of the highest score; of equals, the first."""
        guesses = [lookup.guess(num_tokens) for lookup in self._lookups] if num_tokens else []
        self._guess = max(guesses, key=_rank, default=Guess())
        return self._guess

    def expected(self, guess: Guess) -> float:
        """Return how many of its tokens are expected to be accepted."""
        if not guess.token_ids:
            return 0.0
        rate = self._rate(guess)
        return sum(rate**i for i in range(1, len(guess.token_ids) + 1)) * guess.score / len(guess.token_ids)

    def likely(self, guess: Guess) -> Sequence[int]:
        """Return its first tokens, as far as each is likely enough to be worth a row of a pass."""
        rate = self._rate(guess)
        return [token_id for i, token_id in enumerate(guess.token_ids, 1) if rate**i >= MIN_CHECKED]

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens, and hold the last guess against them."""
        kind = _kind(self._guess)
        for guessed, token_id in zip(self._guess.token_ids, token_ids, strict=False):
            self._seen[kind] += 1
            if guessed != token_id:
                break
            self._right[kind] += 1
        self._guess = Guess()
        for lookup in self._lookups:
            lookup.commit(token_ids)

    def _rate(self, guess: Guess) -> float:
        kind = _kind(guess)
        prior = EXPECTED[kind[1]] * EXPECTED_WEIGHT
        return (self._right[kind] + prior) / (self._seen[kind] + EXPECTED_WEIGHT)


def _rank(guess: Guess) -> tuple[bool, float]:
    return guess.kind == pb.PROPOSER_PREDICTION and len(guess.token_ids) > 0, guess.score


def _kind(guess: Guess) -> tuple[int, int]:
    return guess.kind, guess.match.bit_length()
