"""What the linear layers of all kernels have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import nn

from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT, RowCounts


class KernelLinear(nn.Module, ABC):
    """A linear layer whose weight is laid out for one kernel, and that multiplies rows in blocks of allowed sizes.

    A row's bits may depend on how many rows are multiplied at once, since the kernel picks its code path by that number
    and by the layer's size. So each layer has the row counts that were found to agree (`..exactness.proof`).
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the layer's sizes; any number of rows is allowed until `counts` is set."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.counts: RowCounts = ANY_COUNT

    @abstractmethod
    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply all rows at once. rows: [rows, in]; returns [rows, out]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in]; returns [..., out]."""
        y = self.by_blocks(x.reshape(-1, self.in_features), self.multiply)
        return y.reshape(*x.shape[:-1], self.out_features)

    def by_blocks(self, rows: torch.Tensor, multiply: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Multiply in blocks of allowed sizes. rows: [rows, in]; returns [rows, out]."""
        num_rows = rows.shape[0]  # len() of a tensor takes a microsecond
        blocks = self.counts.blocks(num_rows)
        if blocks == [num_rows]:
            return multiply(rows)
        missing = sum(blocks) - num_rows
        padded = torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows
        return torch.cat([multiply(block) for block in torch.split(padded, blocks)])[:num_rows]
