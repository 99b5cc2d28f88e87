"""Linear layers as they are stored with weights of 8 bits."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.rotation import rotated

_LARGEST = 127
_LEAST_SCALE = 1e-30  # of an output whose weights are all zero


class RoundedLinear(nn.Linear):
    """A layer whose weight is a whole number times its output's scale; a kernel lays it out to multiply fast."""

    weight: nn.Parameter  # [out, in] int8, from -127 to 127
    weight_scale: nn.Parameter  # [out, 1] float32, of as few digits as bfloat16: opening a model may convert it

    block: int = 1
    """How many neighbouring inputs are rotated together before they are rounded; 1 where they come rotated."""

    @classmethod
    def empty(cls, in_features: int, out_features: int, bias: nn.Parameter | None, block: int = 1) -> Self:
        """Return a layer whose weights are still to be loaded."""
        layer = cls(in_features, out_features, bias=False, device="meta")
        layer.register_parameter("bias", bias)
        layer.block = block
        layer.weight = _fixed(torch.empty(out_features, in_features, dtype=torch.int8, device="meta"))
        layer.weight_scale = _fixed(torch.empty(out_features, 1, device="meta"))
        return layer

    @classmethod
    def of(cls, linear: nn.Linear, block: int = 1) -> Self:
        """Return the layer itself if it is rounded, or else round its weight, each output to its largest magnitude."""
        if isinstance(linear, cls):
            return linear
        layer = cls.empty(linear.in_features, linear.out_features, linear.bias, block)
        weight = rotated(linear.weight.detach().float(), block)
        scale = (weight.abs().amax(1, keepdim=True) / _LARGEST).clamp_(min=_LEAST_SCALE).bfloat16().float()  # [out, 1]
        rounded = (weight / scale).round_().clamp_(-_LARGEST, _LARGEST)
        layer.weight, layer.weight_scale = _fixed(rounded.to(torch.int8)), _fixed(scale)
        return layer

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by the weight in the type of x, [..., in]: slow, to compare with. Returns [..., out]."""
        x = rotated(x.float(), self.block).to(x.dtype)
        return functional.linear(x, (self.weight * self.weight_scale).to(x.dtype), self.bias)


def joined(linears: Sequence[nn.Linear]) -> nn.Linear:
    """Return one layer with the outputs of all, in their order."""
    bias = None
    if linears[0].bias is not None:
        bias = _fixed(torch.cat([linear.bias.detach() for linear in linears]))
    of_file = [linear for linear in linears if isinstance(linear, KQuantLinear)]
    if of_file:
        return KQuantLinear.joined(of_file, bias)
    weight = torch.cat([linear.weight.detach() for linear in linears])
    rounded = [linear for linear in linears if isinstance(linear, RoundedLinear)]
    if rounded:
        layer: nn.Linear = RoundedLinear.empty(weight.shape[1], weight.shape[0], bias, rounded[0].block)
        layer.weight_scale = _fixed(torch.cat([linear.weight_scale.detach() for linear in rounded]))
    else:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.register_parameter("bias", bias)
    layer.weight = _fixed(weight)
    return layer


def _fixed(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
