"""The scores of one row, of which few can win: as a rule only those are computed, and all others are compared once."""

import math

import numpy as np
import numpy.typing as npt
import torch

from shared.errors import NoTokenError

Floats = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int64]

LOWEST = float(np.finfo(np.float32).min)
_COLUMN = 64  # so many logits are compared with one another first
_INFINITY, _MINUS_INFINITY = 0x7F80, 0xFF80  # as bits of bfloat16; bits above them are NaN


class Scores:
    """What a row's logits are less the greatest of them, so that no temperature overflows, over the temperature."""

    def __init__(self, logits: torch.Tensor, temperature: float, position: int) -> None:
        """Take the row. logits: [V], any float type. Raises NoTokenError if it has nothing to draw."""
        self._logits: Floats = logits.float().numpy()  # [V]
        self._temperature = temperature
        greatest = float(self._logits.max())
        _check(greatest, position)
        if greatest == math.inf:  # counts as the greatest float
            greatest = -LOWEST
            self._logits = self._logits.clip(max=np.float32(greatest))
        self._greatest = greatest
        self._near: tuple[float, TokenIds, Floats] = math.inf, np.empty(0, np.int64), np.empty(0, np.float32)

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return len(self._logits)

    def all(self) -> Floats:
        """Return the scores of all tokens, [V]."""
        return self._of(self._logits)

    def at_least(self, border: float) -> tuple[TokenIds, Floats]:
        """Return the tokens whose scores are at least so much, in ascending order, and the scores. Returns [N] each."""
        found, token_ids, scores = self._near
        if border < found:
            below = 1e-6 * abs(border) + 1e-40  # more than two roundings, which keep the order of logits
            least = max(self._greatest + (border - below) * self._temperature - 1e-40, LOWEST)
            token_ids = (self._logits >= np.float32(least)).nonzero()[0]  # with numpy, in a seventh of torch's time
            scores = self._of(self._logits[token_ids])
        kept = scores >= border
        if not kept.all():
            token_ids, scores = token_ids[kept], scores[kept]
        if border < found:
            self._near = border, token_ids, scores
        return token_ids, scores

    def kth(self, k: int) -> float:
        """Return the k-th greatest score, counting equals.

        Where k stretches of logits have a greatest one that is at least so much, so is the k-th greatest of them all.
        """
        logits, columns = self._logits, len(self) // _COLUMN
        if k < columns:
            greatest = logits[: columns * _COLUMN].reshape(_COLUMN, columns).max(0)
            logits = logits[logits >= np.partition(greatest, -k)[-k]]
        return float(self._of(np.partition(logits, -k)[-k:][:1])[0])

    def _of(self, logits: Floats) -> Floats:
        scores: Floats = (torch.from_numpy(logits) - self._greatest).div_(self._temperature).numpy()
        return scores


def likeliest(logits: torch.Tensor, position: int) -> int:
    """Return the first of the greatest logits. logits: [V], any float type. Raises NoTokenError as above.

    numpy has no bfloat16, but the order of positive floats is that of their bits, which numpy compares many times
    as fast as torch compares bfloat16.
    """
    if logits.dtype is torch.bfloat16:
        bits = logits.view(torch.int16).numpy()
        index = int(bits.argmax())
        if 0 < bits[index] <= _INFINITY and bits.view(np.uint16).max() <= _MINUS_INFINITY:
            return index
    values = logits.float().numpy()
    index = int(values.argmax())
    _check(values[index], position)
    return index


def _check(greatest: float, position: int) -> None:
    """Raise NoTokenError if a row with this greatest logit has nothing to draw; any NaN in the row makes it NaN."""
    if not greatest > -math.inf:
        problem = "a logit is not a number" if math.isnan(greatest) else "each token is forbidden"
        raise NoTokenError(f"no token can be drawn at position {position}: {problem}")
