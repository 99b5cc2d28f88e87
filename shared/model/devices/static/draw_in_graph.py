"""Draws tokens on the device that has the logits, within a graph of fixed shapes."""

from dataclasses import dataclass
from typing import Self

import torch

from shared.model.distributed.collective import Collective
from shared.model.runner import NO_TOKEN
from shared.model.sampling.noise import keyed_gumbel


@dataclass(frozen=True)
class DrawInputs:
    """How to draw at each row of a graph. B slots, T tokens each."""

    noise_keys: torch.Tensor  # [B, T, 2] int32, `noise.row_key` of the token that follows
    temperature: torch.Tensor  # [B] float32; 0 is greedy
    floor: torch.Tensor  # [B] float32, the logarithm of min-p

    @classmethod
    def greedy(cls, num_slots: int, num_rows: int) -> Self:
        """Return inputs that draw the likeliest token at each row."""
        keys = torch.zeros(num_slots, num_rows, 2, dtype=torch.int32)
        return cls(keys, torch.zeros(num_slots), torch.full((num_slots,), -torch.inf))

    def to(self, device: torch.device) -> Self:
        """Move the inputs to the device."""
        return type(self)(self.noise_keys.to(device), self.temperature.to(device), self.floor.to(device))


def draw_in_graph(
    logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs, ranks: Collective | None = None
) -> torch.Tensor:
    """Return the tokens that `sampler.draw` returns without top-k and top-p, or NO_TOKEN. [B, T] int32.

    logits: [B, T, V]. vocabulary: [V] int32, all token ids, or this rank's part of them where they are split between
    `ranks`, which then tell one another three numbers a row and no logits. The first of the greatest is found by
    comparing, since an argmax would be int64, and the device would decide which one of equals it returns.
    """
    temperature, floor = inputs.temperature[:, None, None], inputs.floor[:, None, None]
    warm = temperature > 0
    scores = logits.float()
    # Bounds are tensors, since a Python number would be compared in float64.
    scores = torch.minimum(scores, torch.full_like(temperature, torch.finfo(torch.float32).max))
    likeliest = scores.amax(-1, keepdim=True)
    scores = (scores - (ranks.greatest(likeliest) if ranks else likeliest)) / torch.where(warm, temperature, 1.0)
    low, high = inputs.noise_keys[..., :1], inputs.noise_keys[..., 1:]  # [B, T, 1] each
    noisy = torch.where(scores >= floor, scores + keyed_gumbel(vocabulary, low, high), -torch.inf)
    scores = torch.where(warm, noisy, scores)
    greatest = scores.amax(-1, keepdim=True)
    last = len(vocabulary) * (ranks.size if ranks else 1) - 1
    first = torch.where(scores == greatest, vocabulary, last).amin(-1)
    greatest = greatest[..., 0]
    if ranks:
        greatest, first = ranks.first_of_greatest(greatest, first, last)
    return torch.where(greatest > torch.full_like(greatest, -torch.inf), first, NO_TOKEN)
