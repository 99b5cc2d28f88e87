"""Linear layers with weights and activations of 8 bits: half the bytes of bfloat16, and exact by construction.

Sums of integers are the same in any order, and the floating-point steps around them are taken number by number within
a row, or, where inputs are rotated first, in a product of that row alone. So a row's bits depend on that row alone,
whatever the processor does with the rows beside it.
"""

import warnings
from abc import abstractmethod
from functools import cache
from typing import cast

import torch
from torch import nn

from shared.model.checkpoints.rotation import rotated
from shared.model.checkpoints.rounded_linear import RoundedLinear
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear

_LEVELS = (127, 63)  # of an activation, to either side of zero: the finest that the processor sums without saturating
LEAST = 1e-30  # stands for the largest magnitude of a row of zeros


class Int8Linear(KernelLinear):
    """A linear layer whose weights are rounded to 8 bits per output, and its activations per row, in each product."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the layer's weight, [out, in]; the layer itself can be dropped afterwards."""
        super().__init__(linear)
        stored = RoundedLinear.of(linear)
        self.levels, self.block = levels(type(self)), stored.block
        self._rotation = rotated(torch.eye(stored.block), stored.block)  # [block, block]
        self._top = torch.tensor(float(self.levels))
        self.bias: torch.Tensor | None = None if linear.bias is None else linear.bias.detach().float()  # [out]
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
        if self.block > 1:
            rows = self._rotate(rows)
        largest = rows.abs().amax(-1, keepdim=True).clamp_(min=LEAST)  # [rows, 1]
        steps = rows * torch.div(self._top, largest)
        y = self.product(steps.round_(), self.levels + 1)
        y.mul_(largest.div_(self._top))
        return y if self.bias is None else y.add_(self.bias)

    def multiply_whole(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply whole numbers, and leave the bias out. rows: [rows, in] float32; returns [rows, out] float32."""
        return self.by_blocks(rows, lambda block: self.product(block, self.levels + 1))

    def _rotate(self, rows: torch.Tensor) -> torch.Tensor:
        """Rotate each block of inputs: for each row a product of its own, always of the same size. rows: [rows, in]."""
        blocks = rows.reshape(len(rows), -1, len(self._rotation))  # [rows, blocks, block]
        return torch.bmm(blocks, self._rotation.expand(len(rows), -1, -1)).flatten(1)


class FbgemmInt8Linear(Int8Linear):
    """By FBGEMM."""

    def lay_out(self, rounded: torch.Tensor, scales: torch.Tensor) -> None:
        """Pack the weights. rounded: [out, in] int8; scales: [out] float32."""
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings(action="ignore"):  # that torch may drop it: its version is pinned
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
