"""Linear layers with bfloat16 weights for processors that cannot multiply bfloat16."""

from typing import cast

import torch
from torch import nn

from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear

_HALF_EXPONENT = 15  # float16 holds magnitudes below 2 ** 16
_SLAB_BYTES = 12 << 20  # of weights; smaller than the last cache of most processors
_OUTPUTS_GRAIN = 16  # outputs that the kernel computes at once


class HalfLinear(KernelLinear):
    """A bfloat16 weight for processors without bfloat16 products: FBGEMM's product of float32 and float16.

    float16 has more digits than bfloat16 and a smaller range, so the weight is scaled by a power of two, which is
    exact except for magnitudes 2 ** 29 below the weight's greatest. Activations stay in float32.

    FBGEMM reads the whole weight again for every 6 rows or so. Split into slabs, it comes from the cache after the
    first read.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the layer's weight, [out, in]; the layer itself can be dropped afterwards."""
        super().__init__(linear)
        weight = linear.weight.detach()  # [out, in]
        _, exponent = torch.frexp(torch.stack(weight.aminmax()).float().abs().max())
        shift = _HALF_EXPONENT - int(exponent)
        self._unscale = 2.0**-shift
        bias = None if linear.bias is None else linear.bias.detach().float()
        size = max(_SLAB_BYTES // (2 * self.in_features) // _OUTPUTS_GRAIN, 1) * _OUTPUTS_GRAIN  # outputs of a slab
        self.packed = [
            torch.ops.quantized.linear_prepack_fp16(
                weight[at : at + size].float() * 2.0**shift, None if bias is None else bias[at : at + size]
            )
            for at in range(0, self.out_features, size)
        ]

    def multiply(self, rows: torch.Tensor) -> torch.Tensor:
        """Multiply at once. rows: [rows, in] float32; returns [rows, out] float32."""
        rows = rows * self._unscale
        slabs = [cast("torch.Tensor", torch.ops.quantized.linear_dynamic_fp16(rows, slab)) for slab in self.packed]
        return slabs[0] if len(slabs) == 1 else torch.cat(slabs, -1)
