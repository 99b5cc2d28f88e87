"""Draws the tokens of one sequence."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from shared.model.sampling.logits_processors import LogitsProcessor, logits_processors
from shared.model.sampling.noise import MAX_NOISE, gumbel, with_noise
from shared.model.sampling.scores import LOWEST, Floats, Scores, TokenIds, likeliest
from shared.sampling_params import SamplingParams

_LIKELY = -4.0  # tokens with at least this score are tried first
_NEAR = -12.0  # the nucleus is first looked for among those with more than this
_DOUBT = 2e-4  # more than a sum of _FEW in float32 may be wrong
_FEW = 1024  # this many tokens may all be tried at once


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
        return likeliest(logits, position)
    scores = Scores(logits, params.temperature, position)
    border = math.log(params.min_p) if params.min_p > 0 else LOWEST
    if 0 < params.top_k < len(scores):
        border = max(border, scores.kth(params.top_k))
    if params.top_p < 1:
        border = max(border, _nucleus_border(scores, border, params.top_p))
    token_ids, with_noises = _candidates(scores, border, params.seed, position)
    return int(token_ids[with_noises.argmax()])  # the first of equals


def _candidates(scores: Scores, border: float, seed: int, position: int) -> tuple[TokenIds, Floats]:
    """Return the tokens that can win, in ascending order, and their scores with noise; all scores are from the border.

    Some likely tokens get their noise first. What must beat the best of these needs a score that the greatest noise
    lifts so far, and, since no score is above 0, as much noise. Returns [C] each.
    """
    likely, of_likely = scores.at_least(max(border, _LIKELY) if len(scores) > _FEW else border)
    if likely.size > _FEW or (border < _LIKELY and len(scores) > _FEW):
        best = float(_noisy(likely[:_FEW], of_likely[:_FEW], seed, position).max())
        likely, of_likely = scores.at_least(max(border, best - MAX_NOISE))
        if likely.size > _FEW:
            noisy = with_noise(likely, best, seed, position)
            likely, of_likely = likely[noisy], of_likely[noisy]
    return likely, _noisy(likely, of_likely, seed, position)


def _noisy(token_ids: TokenIds, scores: Floats, seed: int, position: int) -> Floats:
    """Return the scores of these tokens with their noise. token_ids, scores: [N]. Returns [N]."""
    noise: Floats = gumbel(torch.from_numpy(token_ids), seed, position).numpy()
    return scores + noise


def _nucleus_border(scores: Scores, border: float, top_p: float) -> float:
    """Return the lowest score in the smallest set of likeliest tokens that reaches top_p of those from the border on.

    Float32 decides, over the whole row, as ever; but where few tokens are left and it is not close, float64 says the
    same of these alone.
    """
    if border > LOWEST and (kept := scores.at_least(border)[1]).size <= _FEW:
        likeliest_first = -np.sort(-kept)
        shares = np.exp(likeliest_first, dtype=np.float64).cumsum()
        shares /= shares[-1]
        if (np.abs(shares - top_p) > _DOUBT).all():
            return float(likeliest_first[(shares >= top_p).argmax()])
    row = scores.all()
    total = torch.from_numpy(row if border == LOWEST else np.where(row >= border, row, -np.inf)).logsumexp(-1)
    for least in (_NEAR, LOWEST):  # it is hardly ever necessary to sort all of them
        likeliest_first = -np.sort(-scores.at_least(max(border, least))[1])
        reached = (torch.from_numpy(likeliest_first) - total).exp().cumsum(-1) >= top_p
        if reached.any():
            return float(likeliest_first[reached.int().argmax()])
    return float(likeliest_first[-1])
