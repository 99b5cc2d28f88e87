"""Draws the tokens of one sequence."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from shared.errors import NoTokenError
from shared.model.sampling.logits_processors import LogitsProcessor, logits_processors
from shared.model.sampling.noise import candidates_by_noise, gumbel
from shared.sampling_params import SamplingParams

_LIKELY = 4.0  # tokens this close to the greatest logit are tried first
_NEAR = 12.0  # the nucleus is first looked for among tokens this close to it
_FEW = 1024  # this many tokens may all be tried at once
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
    scores = _differences(logits, position).div_(params.temperature)  # [V], the greatest is 0
    if params.min_p > 0:
        scores = scores.masked_fill(scores < math.log(params.min_p), -torch.inf)
    if 0 < params.top_k < scores.numel():
        scores = scores.masked_fill(scores < torch.topk(scores, params.top_k).values[-1], -torch.inf)
    if params.top_p < 1:
        scores = scores.masked_fill(scores < _nucleus_border(scores, params.top_p), -torch.inf)
    many = params.top_k == 0 and params.top_p == 1 and len(scores) > _FEW
    candidates = _candidates(scores, params.seed, position) if many else _above(scores, -torch.inf)
    noisy = scores[candidates] + gumbel(candidates.int(), params.seed, position)  # [C]
    return int(candidates[noisy == noisy.max()].min())


def _candidates(scores: torch.Tensor, seed: int, position: int) -> torch.Tensor:
    """Return the tokens that can win, each once or twice: the likely ones, and those with enough noise. scores: [V].

    Returns [C] int64.
    """
    likely = _above(scores, -_LIKELY)
    best = (scores[likely] + gumbel(likely.int(), seed, position)).max()
    return torch.cat([likely, candidates_by_noise(len(scores), float(best) + _LIKELY, seed, position)])


def _above(scores: torch.Tensor, border: float) -> torch.Tensor:
    """Return the tokens above the border, [N] int64: with numpy, in a seventh of torch's time. scores: [V]."""
    return torch.from_numpy((scores.numpy() > border).nonzero()[0])


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

    numpy has no bfloat16, but the order of non-negative floats is that of their bits, which numpy compares many times
    as fast as torch compares bfloat16.
    """
    if logits.dtype is torch.bfloat16:
        bits = logits.view(torch.int16).numpy()
        index = int(bits.argmax())
        if 0 <= bits[index] <= _INFINITY and bits.view(np.uint16).max() <= _MINUS_INFINITY:
            return index
    values = logits.float().numpy()
    index = int(values.argmax())
    _check(values[index], position)
    return index


def _nucleus_border(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the lowest score in the smallest set of likeliest tokens that reaches top_p. scores: [V]."""
    total = scores.logsumexp(-1)
    near = scores[scores > -_NEAR]  # it is hardly ever necessary to sort all of them
    for some in (near, scores):
        likeliest = some.sort(descending=True).values
        reached = (likeliest - total).exp().cumsum(-1) >= top_p
        if reached.any():
            return likeliest[reached.int().argmax()]
    return likeliest[-1]
