"""Matrix products whose rows do not depend on how many rows there are."""

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

_HINT_ROWS = 8  # what oneDNN's packed layout is tuned for: the rows of a verify
_HALF_EXPONENT = 15  # float16 holds magnitudes below 2 ** 16


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


class HalfLinear(nn.Module):
    """A bfloat16 linear layer for processors without bfloat16 products: FBGEMM's, with weights in float16.

    float16 has more digits than bfloat16 and a smaller range, so the weight is scaled by a power of two, which loses
    nothing: only magnitudes 2 ** 29 below the weight's greatest lose digits. Sums are float32 as in oneDNN's product.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the layer's weight, [out, in]; the layer itself can be dropped afterwards."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()  # [out, in]
        _, exponent = torch.frexp(weight.abs().max())
        shift = _HALF_EXPONENT - int(exponent)
        self._unscale = 2.0**-shift
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight * 2.0**shift, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in] bfloat16; returns [..., out]."""
        y = torch.ops.quantized.linear_dynamic_fp16((x * self._unscale).float(), self.packed)
        return cast("torch.Tensor", y).to(x.dtype)


def packed(linear: nn.Linear) -> nn.Module:
    """Return the layer in the packed form that this processor has for its type."""
    in_onednn = linear.weight.dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 - the only door to it
    return PackedLinear(linear) if in_onednn else HalfLinear(linear)


def exact_row_counts(dtype: torch.dtype, most: int) -> list[int]:
    """Return the row counts up to `most` at which each row of a packed product has the same bits, in rising order.

    Found by trial, since kernels for the last few rows may add up in another order; which counts these are depends on
    the processor and not on the layer's sizes. The sums cancel, so that nothing but their rounding is left to compare.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(1536, generator=generator)
    layer = nn.Linear(1536, 64, bias=False, dtype=dtype)
    layer.weight.data = torch.randn(64, 768, generator=generator).repeat(1, 2)[:, order].to(dtype)
    half = torch.randn(most, 768, generator=generator)
    x = torch.cat([half, -half], -1)[:, order].to(dtype)  # [most, 1536]
    multiply = packed(layer)
    whole = multiply(x)  # [most, 64]
    return [rows for rows in range(1, most + 1) if torch.equal(multiply(x[:rows]), whole[:rows])]


def replace_linears(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Put `make(layer)` in the place of each linear layer of the model."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, make(child))
