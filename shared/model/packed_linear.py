"""Linear layers by oneDNN."""

from typing import cast

import torch
from torch import nn

_HINT_ROWS = 8  # what the packed layout is tuned for: the rows of a verify


class PackedLinear(nn.Module):
    """A linear layer with its weight laid out once for oneDNN.

    Two reasons: a row costs half of the unpacked product in bfloat16, and nearly any number of rows gives the same bits
    for each row (one row alone takes another path). Speculation is lossless because of the second one.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the layer's weight, [out, in]; the layer itself can be dropped afterwards."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _HINT_ROWS)  # noqa: SLF001 - the only door to it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in]; returns [..., out]."""
        rows = x.reshape(-1, self.in_features)
        y = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")  # noqa: SLF001 - likewise
        return cast("torch.Tensor", y).reshape(*x.shape[:-1], self.out_features)
