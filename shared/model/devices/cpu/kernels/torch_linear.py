"""Linear layers by torch's own product."""

import torch
from torch import nn
from torch.nn import functional

from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear


class TorchLinear(KernelLinear):
    """A linear layer with its weight as it is: for processors without a faster kernel."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the weight, [out, in], and the bias."""
        super().__init__(linear)
        self.weight, self.bias = linear.weight, linear.bias

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply all rows at once. rows: [rows, in]; returns [rows, out]; both of the weight's type."""
        return functional.linear(rows, self.weight, self.bias)
