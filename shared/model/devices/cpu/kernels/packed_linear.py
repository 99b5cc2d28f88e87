"""Linear layers by oneDNN."""

from typing import cast

import torch
from torch import nn

from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear

_HINT_ROWS = 8  # what the packed layout is tuned for: the rows of a verify


class PackedLinear(KernelLinear):
    """A linear layer whose weight is laid out once for oneDNN: in bfloat16 a row costs half of the unpacked product.

    Which row counts agree depends on the processor: with AVX-512 all from 2 to 512; with AMX those from 2 to 32, and
    beyond that, classes that differ from layer to layer (docs/decisions.md).
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the layer's weight, [out, in]; the layer itself can be dropped afterwards."""
        super().__init__(linear)
        self.bias = linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _HINT_ROWS)  # noqa: SLF001 - the only door to it

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply all rows at once. rows: [rows, in]; returns [rows, out]; both of the weight's type."""
        y = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")  # noqa: SLF001 - likewise
        return cast("torch.Tensor", y)
