"""Draws the tokens of one sequence."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from shared.errors import NoTokenError
from shared.model.sampling.logits_processors import LogitsProcessor, logits_processors
from shared.model.sampling.noise import MAX_NOISE, gumbel, with_noise
from shared.sampling_params import SamplingParams

_Scores = npt.NDArray[np.float32]
_TokenIds = npt.NDArray[np.int64]

_LOWEST = float(np.finfo(np.float32).min)
_LIKELY = -4.0  # tokens with at least this score are tried first
_NEAR = -12.0  # the nucleus is first looked for among those with more than this
_DOUBT = 2e-4  # more than a sum of _FEW in float32 may be wrong
_FEW = 1024  # this many tokens may all be tried at once
_COLUMN = 64  # so many scores are compared with one another first
_INFINITY, _MINUS_INFINITY = 0x7F80, 0xFF80  # as bits of bfloat16; bits above them are NaN


class Sampler:
    """Draws the tokens of one sequence, one by one: each draw's history is the tokens before it."""

    def __init__(
        self, params: SamplingParams, token_ids: Sequence[int] = (), grammar: LogitsProcessor | None = None
    ) -> None:
        """Begin after these tokens. Raises InvalidFieldError if those of the output do not conform to the grammar.

        If log-probabilities of the prompt are wanted, its positions are drawn too: each draw gives the prompt's token.
        """
        self.params = params
        self._given = token_ids if params.prompt_logprobs else ()
        start = len(token_ids) if params.output_start is None else params.output_start
        self._processors = logits_processors(params, token_ids[:start]) + ([grammar] if grammar else [])
        self.push(token_ids[start:])

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return any(processor.ended for processor in self._processors)

    def forced(self) -> list[int]:
        """Return tokens that are certain to be drawn next, whatever the logits."""
        return [token_id for processor in self._processors for token_id in processor.forced()]

    @property
    def for_device(self) -> SamplingParams | None:
        """The parameters for a device to draw with, if only logits, temperature, min-p and noise decide; else None."""
        params = self.params
        alone = not self._processors and not self._given and params.top_k == 0 and params.top_p == 1
        return params if alone else None

    def draw(self, logits: torch.Tensor, position: int) -> int:
        """Return the token for this position, given its logits, and add it to the history.

        logits: [V], any float type. One row at a time, so that a draw cannot depend on the rows beside it. Raises
        NoTokenError if no token can be drawn.
        """
        if position < len(self._given):
            return self._given[position]
        if not self._processors:
            return draw(logits, self.params, position)
        scores = logits.to(torch.float32, copy=True)
        for processor in self._processors:
            processor.process(scores)
        token_id = draw(scores, self.params, position)
        self.push([token_id])
        return token_id

    def push(self, token_ids: Sequence[int]) -> None:
        """Append tokens that this sampler did not draw to the history."""
        for processor in self._processors:
            processor.push(token_ids)

    def pop(self, token_ids: Sequence[int]) -> None:
        """Remove these tokens from the end of the history."""
        for processor in self._processors:
            processor.pop(token_ids)


def draw(logits: torch.Tensor, params: SamplingParams, position: int) -> int:
    """Return the token for this position, given its logits, regardless of any history.

    Greedy takes the likeliest token. Otherwise the greatest logit is subtracted, so that no temperature overflows; then
    temperature, min-p, top-k and top-p apply in this order (as in vLLM), and the token with the greatest logit plus
    noise is drawn, which is a sample of their softmax. Raises NoTokenError if no token can be drawn. logits: [V].
    """
    if params.greedy:
        return _likeliest(logits, position)
    scores = _differences(logits, position).div_(params.temperature).numpy()  # [V], the greatest is 0
    border = math.log(params.min_p) if params.min_p > 0 else _LOWEST
    if 0 < params.top_k < len(scores):
        border = max(border, _kth(scores, params.top_k))
    if params.top_p < 1:
        border = max(border, _nucleus_border(scores, border, params.top_p))
    candidates = _candidates(scores, border, params.seed, position)
    return int(candidates[_noisy(candidates, scores, params.seed, position).argmax()])  # the first of equals


def _candidates(scores: _Scores, border: float, seed: int, position: int) -> _TokenIds:
    """Return the tokens that can win, in ascending order; all have scores of at least `border`. scores: [V].

    Some likely tokens get their noise first. What must beat the best of these needs a score that the greatest noise
    lifts so far, and, since no score is above 0, as much noise. Returns [C] int64.
    """
    if len(scores) <= _FEW:
        return _at_least(scores, border)
    likely = _at_least(scores, max(border, _LIKELY))
    if likely.size <= _FEW and border >= _LIKELY:
        return likely
    best = float(_noisy(likely[:_FEW], scores, seed, position).max())
    possible = _at_least(scores, max(border, best - MAX_NOISE))
    return with_noise(possible, best, seed, position) if possible.size > _FEW else possible


def _noisy(token_ids: _TokenIds, scores: _Scores, seed: int, position: int) -> _Scores:
    """Return the scores of these tokens with their noise. token_ids: [N]. scores: [V]. Returns [N]."""
    noise: _Scores = gumbel(torch.from_numpy(token_ids), seed, position).numpy()
    return scores[token_ids] + noise


def _at_least(scores: _Scores, border: float) -> _TokenIds:
    """Return the tokens from the border on, [N] int64: with numpy, in a seventh of torch's time. scores: [V]."""
    return (scores >= border).nonzero()[0]


def _kth(scores: _Scores, k: int) -> float:
    """Return the k-th greatest score, counting equals. scores: [V].

    Where k stretches of scores have a greatest one that is at least so much, so is the k-th greatest of them all.
    """
    columns = len(scores) // _COLUMN
    if k < columns:
        greatest = scores[: columns * _COLUMN].reshape(_COLUMN, columns).max(0)
        scores = scores[scores >= np.partition(greatest, -k)[-k]]
    return float(np.partition(scores, -k)[-k])


def _differences(logits: torch.Tensor, position: int) -> torch.Tensor:
    """Return the logits minus the greatest, [V] float32, all at most 0; infinity counts as the greatest float."""
    scores = logits.to(torch.float32, copy=True)
    greatest = float(scores.amax())
    _check(greatest, position)
    if greatest == math.inf:
        scores.clamp_(max=(greatest := torch.finfo(scores.dtype).max))
    return scores.sub_(greatest)


def _check(greatest: float, position: int) -> None:
    """Raise NoTokenError if a row with this greatest logit has nothing to draw; any NaN in the row makes it NaN."""
    if not greatest > -math.inf:
        problem = "a logit is not a number" if math.isnan(greatest) else "each token is forbidden"
        raise NoTokenError(f"no token can be drawn at position {position}: {problem}")


def _likeliest(logits: torch.Tensor, position: int) -> int:
    """Return the first of the greatest logits. logits: [V], any float type.

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


def _nucleus_border(scores: _Scores, border: float, top_p: float) -> float:
    """Return the lowest score in the smallest set of likeliest tokens that reaches top_p of those from the border on.

    Float32 decides, over the whole row, as ever; but where few tokens are left and it is not close, float64 says the
    same of these alone. scores: [V].
    """
    kept = scores[_at_least(scores, border)]
    if kept.size <= _FEW:
        likeliest = -np.sort(-kept)
        shares = np.exp(likeliest, dtype=np.float64).cumsum()
        shares /= shares[-1]
        if (np.abs(shares - top_p) > _DOUBT).all():
            return float(likeliest[(shares >= top_p).argmax()])
    total = torch.from_numpy(np.where(scores >= border, scores, -np.inf)).logsumexp(-1)
    for least in (_NEAR, _LOWEST):  # it is hardly ever necessary to sort all of them
        likeliest = -np.sort(-scores[_at_least(scores, max(border, least))])
        reached = (torch.from_numpy(likeliest) - total).exp().cumsum(-1) >= top_p
        if reached.any():
            return float(likeliest[reached.int().argmax()])
    return float(likeliest[-1])
