"""The numbers of rows at which a product's rows have the same bits."""

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import nn

from shared.model.linears import activation_dtype, packed


class RowCounts:
    """The numbers of rows that a forward pass may have."""

    def __init__(self, counts: Sequence[int]) -> None:
        """Allow these, in rising order."""
        self._counts = counts

    def pad(self, num_rows: int) -> int:
        """Return the least allowed number of rows that is not less; above them all, the number itself."""
        index = bisect_left(self._counts, num_rows)
        return self._counts[index] if index < len(self._counts) else num_rows

    @classmethod
    def exact(cls, dtype: torch.dtype, most: int) -> "RowCounts":
        """Allow the row counts up to `most` at which each row of a packed product has the same bits.

        Found by trial, since kernels for the last few rows may add up in another order; which counts these are depends
        on the processor and not on the layer's sizes. The sums cancel, so that only their rounding is compared.
        """
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(1536, generator=generator)
        layer = nn.Linear(1536, 64, bias=False, dtype=dtype)
        layer.weight.data = torch.randn(64, 768, generator=generator).repeat(1, 2)[:, order].to(dtype)
        half = torch.randn(most + 64, 768, generator=generator)
        x = torch.cat([half, -half], -1)[:, order].to(dtype).to(activation_dtype(dtype))  # [most + 64, 1536]
        multiply = packed(layer)
        whole = multiply(x)  # [most + 64, 64]
        return cls([rows for rows in range(1, most + 1) if torch.equal(multiply(x[:rows]), whole[:rows])])
