"""Proposes the output that the client predicted."""

from collections.abc import Sequence

from draft_service.ngram_index import MAX_MATCH, NgramIndex
from draft_service.proposer import Guess, Lookup
from shared.pb import specdec_pb2 as pb

WINDOW = 32  # tokens after the place where the reply left the prediction, within which a short match counts


class Prediction(Lookup):
    """Follows the reply through the predicted output, and proposes what comes next there.

    Where the reply departs from the prediction, search for the reply's last tokens: one matching token is enough just
    after the place of departure, elsewhere it takes `min_match`. If there is no match at the first departing token,
    assume that it replaced one token of the prediction.
    """

    def __init__(self, predicted_ids: Sequence[int], min_match: int) -> None:
        """Expect the reply to begin as the prediction does."""
        self._index = NgramIndex(min_match, predicted_ids)
        self._min_match = min_match
        self._recent: list[int] = []  # the reply's last tokens
        self._place = 0  # how many tokens of the prediction the reply is known to have followed
        self._follows = True  # whether the reply's last token is the one before that place
        self._next: int | None = 0  # where in the prediction the next guess begins

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens."""
        text, followed = self._index.text, self._follows
        for token_id in token_ids:
            self._follows = self._place < len(text) and text[self._place] == token_id
            self._place += self._follows
        self._recent = [*self._recent, *token_ids][-MAX_MATCH:]
        if self._follows:
            self._next = self._place
        else:
            self._next = self._search() or (self._place + 1 if followed else None)

    def guess(self, num_tokens: int) -> Guess:
        """Return at most `num_tokens` draft tokens."""
        if self._next is None:
            return Guess()
        token_ids = list(self._index.text[self._next : self._next + num_tokens])
        return Guess(pb.PROPOSER_PREDICTION, token_ids, MAX_MATCH if self._follows else 1, len(token_ids))

    def _search(self) -> int | None:
        end = min(self._place + WINDOW, len(self._index.text))
        near = self._index.longest(self._recent, range(self._place + 1, end + 1))
        match = near if near.length >= self._min_match else self._index.find(self._recent) or near
        if match.length >= self._min_match:
            self._place = match.end
        return match.end if match.length else None
