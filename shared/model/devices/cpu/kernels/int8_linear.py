"""Linear layers with 8-bit weights: for drafts, whose guesses may be rough if they are quick."""

from typing import cast

import torch
from torch import nn


def can_round() -> bool:
    """Whether this build of torch can multiply by 8-bit weights."""
    try:
        Int8Linear(nn.Linear(64, 64))(torch.ones(1, 64))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True


class Int8Linear(nn.Module):
    """A linear layer that rounds its weights, and in each product the activations, to 8 bits: FBGEMM's or oneDNN's.

    Never for a target: rounding changes the model, and a row's bits depend on the rows beside it.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Round the layer's weight, [out, in], per output; the layer itself can be dropped afterwards."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()  # [out, in]
        scales = weight.abs().amax(1).clamp(min=1e-9) / 127  # [out]
        zeros = torch.zeros(self.out_features, dtype=torch.int64)
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in] float32; returns [..., out] float32."""
        # One bit less for activations, since without VNNI the sum of two products can overflow.
        return cast("torch.Tensor", torch.ops.quantized.linear_dynamic(x, self.packed, reduce_range=True))
