"""Draws the token of one row."""

import torch

from shared.model.noise import gumbel
from shared.sampling_params import SamplingParams

_LIKELIEST = 1024  # nearly every nucleus lies within so many tokens, and a top-k costs far less than a sort


def draw(logits: torch.Tensor, params: SamplingParams, position: int) -> int:
    """Return the token that stands at this position, given its logits.

    Greedy takes the likeliest token. Otherwise temperature, top-k and top-p apply in this order (as in transformers
    and vLLM), and the token of the greatest logit plus noise is drawn, which is a sample of their softmax.

    logits: [V], any float type. One row at a time, so that a draw cannot depend on the rows beside it.
    """
    if params.greedy:
        return int(logits.float().numpy().argmax())  # ten times as fast as torch's
    scores = logits.float() / params.temperature  # [V]
    if 0 < params.top_k < scores.numel():
        scores = scores.masked_fill(scores < torch.topk(scores, params.top_k).values[-1], -torch.inf)
    if params.top_p < 1:
        scores = scores.masked_fill(scores < _nucleus_border(scores, params.top_p), -torch.inf)
    candidates = (scores > -torch.inf).nonzero().flatten()  # [C]
    noise = gumbel(candidates.int(), params.seed, position)
    return int(candidates[(scores[candidates] + noise).argmax()])


def _nucleus_border(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the score of the last token of the smallest set of likeliest tokens that reaches top_p. scores: [V]."""
    total = scores.logsumexp(-1)
    for size in (min(_LIKELIEST, scores.numel()), scores.numel()):
        likeliest = torch.topk(scores, size).values
        reached = (likeliest - total).exp().cumsum(-1) >= top_p
        if reached.any():
            return likeliest[reached.int().argmax()]
    return likeliest[-1]
