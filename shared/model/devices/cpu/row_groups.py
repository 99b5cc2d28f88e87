"""Element-wise functions, computed so that a row's bits do not depend on the rows beside it."""

from functools import cache

import torch
from torch import nn

_GRAIN = 32_768  # torch gives each thread at least this many numbers: at::internal::GRAIN_SIZE
_VECTOR = 64  # a multiple, on every processor, of the numbers that torch's loops take at once


class RowGroups(nn.Module):
    """An activation function, run over groups of rows that torch's threads split at the ends of whole vectors.

    torch splits the numbers evenly between threads, even within a row, and computes what is left of a part after the
    whole vectors with other code, whose last bit may differ: with SiLU in float32 and three threads or more, a row's
    bits depended on the number of rows.
    """

    def __init__(self, function: nn.Module) -> None:
        """Take over the function."""
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it. x: [..., width]; returns the same shape."""
        num_rows, width = x.shape[:-1].numel(), x.shape[-1]
        sizes = group_sizes(num_rows, width, torch.get_num_threads())
        if len(sizes) == 1:
            return self._run(x)
        groups = torch.split(x.reshape(num_rows, width), sizes)
        return torch.cat([self._run(group) for group in groups]).reshape(x.shape)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.function(x)
        return y


@cache
def group_sizes(num_rows: int, width: int, num_threads: int) -> list[int]:
    """Return the sizes of groups of rows, as few as possible, none of which is split within a vector."""
    sizes = []
    while num_rows:
        size = next(
            rows
            for rows in range(num_rows, 0, -1)
            if rows == 1 or (width % _VECTOR == 0 and _whole(rows * width, num_threads))
        )
        sizes.append(size)
        num_rows -= size
    return sizes


def _whole(numbers: int, num_threads: int) -> bool:
    """Return whether the parts of this many numbers, one per thread, end at the end of a vector."""
    parts = min(num_threads, -(-numbers // _GRAIN))
    return numbers % (parts * _VECTOR) == 0
