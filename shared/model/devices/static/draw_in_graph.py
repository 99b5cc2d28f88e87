"""Draws tokens on the device that has the logits, within a graph of fixed shapes."""

from dataclasses import dataclass
from typing import Self

import torch

from shared.model.devices.static.noise_in_graph import noise_in_graph, words_in_graph
from shared.model.distributed.collective import Collective
from shared.model.runner import NO_TOKEN


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
    # Numbers are tensors, since a graph would have a Python number in float64.
    zero, one, lowest = (torch.full_like(temperature, number) for number in (0, 1, -torch.inf))
    warm = temperature > zero
    scores = logits.float()
    scores = torch.minimum(scores, torch.full_like(temperature, torch.finfo(torch.float32).max))
    likeliest = scores.amax(-1, keepdim=True)
    scores = (scores - (ranks.greatest(likeliest) if ranks else likeliest)) / torch.where(warm, temperature, one)
    low, high = inputs.noise_keys[..., :1], inputs.noise_keys[..., 1:]  # [B, T, 1] each
    noise = noise_in_graph(words_in_graph(vocabulary, low, high))
    scores = torch.where(warm, torch.where(scores >= floor, scores + noise, lowest), scores)
    greatest = scores.amax(-1, keepdim=True)
    last = len(vocabulary) * (ranks.size if ranks else 1) - 1
    first = torch.where(scores == greatest, vocabulary, last).amin(-1)
    greatest = greatest[..., 0]
    if ranks:
        greatest, first = ranks.first_of_greatest(greatest, first, last)
    return torch.where(greatest > lowest[..., 0], first, NO_TOKEN)
