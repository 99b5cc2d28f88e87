"""The rotations of all positions, computed once."""

from typing import Any

import torch
from torch import nn

_BLOCK = 64  # positions computed at once: always as many, so that a position's bits do not depend on the table's size


class RotaryTable(nn.Module):
    """The cosines and sines that a model's rotary embedding gives for each position.

    A row's rotation thus depends only on its own position, not on the other positions of the pass.
    """

    def __init__(self, embedding: Any, num_positions: int, dtype: torch.dtype) -> None:
        """Compute them for the first `num_positions` positions, for activations of this type."""
        super().__init__()
        like = torch.empty(1, dtype=dtype)
        positions = torch.arange(-(-num_positions // _BLOCK) * _BLOCK)
        blocks = positions.view(-1, 1, _BLOCK).unbind()
        tables = zip(*(embedding(like, block) for block in blocks), strict=True)
        self.cos, self.sin = (torch.cat(table, 1)[0] for table in tables)  # [positions, head_dim] each

    def forward(self, _: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up. position_ids: [1, rows]; returns [1, rows, head_dim] twice."""
        return self.cos[position_ids], self.sin[position_ids]
