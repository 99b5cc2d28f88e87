"""Linear layers with weights of 4 bits: for a draft, whose guesses may be rough if they are quick."""

import torch
from torch import nn

_GROUP = 32  # weights that share a scale and a zero
_ROWS_GRAIN = 64  # what the kernel asks of the number of outputs


class Int4Linear(nn.Module):
    """A linear layer whose weights are rounded to 16 levels between the least and the greatest of each group.

    Decoding one row is bound by reading the weights, and these are a quarter of bfloat16's. Rounding a model changes
    it, and a row's bits depend on the number of rows: never for a target.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        """Round the layer's weight, [out, in], for activations of this type; the layer itself can be dropped."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        groups = linear.weight.detach().float().view(self.out_features, -1, _GROUP)  # [out, in / group, group]
        low, high = groups.aminmax(dim=-1, keepdim=True)
        scale = ((high - low) / 15).clamp(min=1e-6)
        levels = ((groups - low) / scale).round().clamp(0, 15).int().flatten(1)  # [out, in]
        zero = low + 8 * scale
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)  # noqa: SLF001 - the only door to it
        self.scales_and_zeros = torch.cat([scale, zero], -1).transpose(0, 1).contiguous().to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply. x: [..., in]; returns [..., out]."""
        rows = x.reshape(-1, self.in_features)
        y: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, _GROUP, self.scales_and_zeros)  # noqa: SLF001 - likewise
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)

    @staticmethod
    def fits(linear: nn.Linear) -> bool:
        """Return whether the kernel takes a layer of these sizes."""
        return linear.in_features % _GROUP == 0 and linear.out_features % _ROWS_GRAIN == 0
