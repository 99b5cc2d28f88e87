"""Linear layers with weights and activations of 8 bits: half the bytes of bfloat16, and exact by construction.

Sums of integers are the same in any order, and the floating-point steps around them are taken number by number within
a row. So a row's bits depend on that row alone, whatever the processor does with the rows beside it.
"""

from abc import abstractmethod
from functools import cache
from typing import cast

import torch
from torch import nn

from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.checkpoints.rounded_linear import RoundedLinear

_LEVELS = (127, 63)  # of an activation, to either side of zero: the finest that the processor sums without saturating
_LEAST = 1e-30  # stands for the largest magnitude of a row of zeros


class Int8Linear(KernelLinear):
    """A linear layer whose weights are rounded to 8 bits per output, and its activations per row, in each product."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the layer's weight, [out, in]; the layer itself can be dropped afterwards."""
        super().__init__(linear)
        stored = RoundedLinear.of(linear)
        self._levels, self._parts = levels(type(self)), stored.parts
        self.bias = None if linear.bias is None else linear.bias.detach().float()  # [out]
        self.lay_out(stored.weight.detach(), stored.weight_scale.detach().float()[:, 0])

    @abstractmethod
    def lay_out(self, rounded: torch.Tensor, scales: torch.Tensor) -> None:
        """Pack the weights for the kernel. rounded: [out, in] int8; scales: [out] float32."""

    @abstractmethod
    def product(self, rows: torch.Tensor, zero: int) -> torch.Tensor:
        """Multiply whole numbers as unsigned bytes, `zero` standing for 0.

        rows: [rows, in] float32, from -zero to zero; returns [rows, out] float32, scaled by the weights' scales.
        """

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply at once. rows: [rows, in] float32; returns [rows, out] float32."""
        largest = rows.abs().amax(-1, keepdim=True).clamp_(min=_LEAST)  # [rows, 1]
        steps = rows * (self._levels / largest)
        y = self._product(steps.round_()) if self._parts == 1 else self._product_of_two(steps)
        y.mul_(largest.div_(self._levels))
        return y if self.bias is None else y.add_(self.bias)

    def _product(self, rounded: torch.Tensor) -> torch.Tensor:
        return self.product(rounded, self._levels + 1)

    def _product_of_two(self, steps: torch.Tensor) -> torch.Tensor:
        """Multiply numbers as the sum of a whole one and a fraction, both of 8 bits. steps: [rows, in]."""
        whole, finer = steps.round(), 2 * self._levels
        fraction = steps.sub_(whole).mul_(finer).round_()
        y, rest = self._product(torch.cat([whole, fraction])).chunk(2)
        return y.add_(rest.mul_(1 / finer))  # two operations: as one, some of torch's loops would round differently


class FbgemmInt8Linear(Int8Linear):
    """By FBGEMM."""

    def lay_out(self, rounded: torch.Tensor, scales: torch.Tensor) -> None:
        """Pack the weights. rounded: [out, in] int8; scales: [out] float32."""
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(rounded, scales.double(), zeros, 0)  # noqa: SLF001 - the only door to FBGEMM
        self.packed = torch.ops.quantized.linear_prepack(quantized, None)

    def product(self, rows: torch.Tensor, zero: int) -> torch.Tensor:
        """Multiply whole numbers. rows: [rows, in] float32; returns [rows, out] float32."""
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return cast("torch.Tensor", multiply(rows, 1.0, zero, self.packed))


class OnednnInt8Linear(Int8Linear):
    """By oneDNN, which alone knows AMX."""

    def lay_out(self, rounded: torch.Tensor, scales: torch.Tensor) -> None:
        """Pack the weights. rounded: [out, in] int8; scales: [out] float32."""
        self.packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._scales, self._zeros = scales, torch.zeros(1, dtype=torch.int64)

    def product(self, rows: torch.Tensor, zero: int) -> torch.Tensor:
        """Multiply whole numbers. rows: [rows, in] float32; returns [rows, out] float32."""
        # Signed bytes would fall to a reference kernel, a thousand times slower, on processors without AMX.
        unsigned = (rows + zero).to(torch.uint8)
        scaled = unsigned, 1.0, zero, self.packed, self._scales, self._zeros
        y = torch.ops.onednn.qlinear_pointwise(*scaled, None, 1.0, 0, torch.float32, "none", [], "")
        return cast("torch.Tensor", y)


class TorchInt8Linear(Int8Linear):
    """By torch's product of float64, which holds such sums exactly: slow, and there on every machine."""

    def lay_out(self, rounded: torch.Tensor, scales: torch.Tensor) -> None:
        """Keep the weights. rounded: [out, in] int8; scales: [out] float32."""
        self._rounded, self._scales = rounded, scales

    def product(self, rows: torch.Tensor, zero: int) -> torch.Tensor:  # noqa: ARG002 - what it has no need of
        """Multiply whole numbers. rows: [rows, in] float32; returns [rows, out] float32."""
        return (rows.double() @ self._rounded.double().T).float() * self._scales


@cache
def levels(kind: type[Int8Linear]) -> int:
    """Return how many levels an activation may have on this processor, to either side of zero.

    Without VNNI, the sum of two products saturates at 16 bits; then one bit of the activations has to do without.
    """
    return next((number for number in _LEVELS if _sums(kind, number)), _LEVELS[-1])


def _sums(kind: type[Int8Linear], number: int) -> bool:
    """Return whether the largest sums come out right."""
    layer = nn.Module.__new__(kind)
    nn.Module.__init__(layer)
    layer.lay_out(torch.full((64, 64), 127, dtype=torch.int8), torch.ones(64))
    rows = torch.full((2, 64), float(number)) * torch.tensor([[1], [-1]])
    right = rows.sum(-1, keepdim=True).expand(-1, 64) * 127  # [2, 64]
    return torch.equal(layer.product(rows, number + 1), right)
