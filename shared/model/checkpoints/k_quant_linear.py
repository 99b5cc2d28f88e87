"""Linear layers as they are stored with the K-quants of a .gguf file."""

from collections.abc import Sequence
from itertools import chain, groupby
from typing import Self

import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override

from shared.model.checkpoints.k_quants import K_QUANTS, LANES, SUPERBLOCK, KQuant, rounded_to, weight_of

_TILES = 16  # whose weights are worked out at once: few enough for the processor's cache


class KQuantLinear(nn.Linear):
    """A layer whose weight is laid out in tiles; where layers were joined, in parts of one form each."""

    weight: nn.Parameter  # [out / LANES, in / SUPERBLOCK, tile_bytes] uint8; of a joined layer, its first part's
    form: KQuant
    others: Sequence[tuple[KQuant, torch.Tensor]] = ()

    @classmethod
    def empty(cls, in_features: int, out_features: int, bias: nn.Parameter | None, form: KQuant) -> Self:
        """Return a layer whose weight is still to be loaded."""
        shape = out_features // LANES, in_features // SUPERBLOCK, form.tile_bytes
        return cls._made(
            in_features, out_features, bias, [(form, torch.empty(shape, dtype=torch.uint8, device="meta"))]
        )

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """Return the layer itself if it has such a weight, or else round its weight, for a trial."""
        if isinstance(linear, cls):
            return linear
        form = K_QUANTS["Q4_K"]
        tiles = rounded_to(linear.weight.detach().float(), form)
        return cls._made(linear.in_features, linear.out_features, linear.bias, [(form, tiles)])

    @classmethod
    def joined(cls, linears: Sequence["KQuantLinear"], bias: nn.Parameter | None) -> Self:
        """Return one layer with the outputs of all, in their order."""
        parts = groupby(chain.from_iterable(linear.parts for linear in linears), lambda part: part[0])
        merged = [(form, torch.cat([tiles for _, tiles in group])) for form, group in parts]
        num_outputs = sum(linear.out_features for linear in linears)
        return cls._made(linears[0].in_features, num_outputs, bias, merged)

    @classmethod
    def _made(
        cls,
        in_features: int,
        out_features: int,
        bias: nn.Parameter | None,
        parts: Sequence[tuple[KQuant, torch.Tensor]],
    ) -> Self:
        layer = cls(in_features, out_features, bias=False, device="meta")
        layer.register_parameter("bias", bias)
        (layer.form, tiles), *layer.others = parts
        layer.weight = nn.Parameter(tiles, requires_grad=False)
        return layer

    @property
    def parts(self) -> Sequence[tuple[KQuant, torch.Tensor]]:
        """The forms and tiles of consecutive outputs."""
        return [(self.form, self.weight.detach()), *self.others]

    def weights(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the weights of some outputs, [outputs] int64, as [outputs, in] float32."""
        rows, first = [], 0
        for form, tiles in self.parts:
            here = outputs[(outputs >= first) & (outputs < first + LANES * len(tiles))] - first
            rows.append(
                weight_of(tiles[here // LANES], form).view(-1, LANES, self.in_features)[range(len(here)), here % LANES]
            )
            first += LANES * len(tiles)
        return torch.cat(rows)

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by the weight in the type of x, [..., in]: slow, to compare with. Returns [..., out]."""
        some = [(form, part) for form, tiles in self.parts for part in torch.split(tiles, _TILES)]
        y = torch.cat([functional.linear(x, weight_of(tiles, form).to(x.dtype)) for form, tiles in some], -1)
        return y if self.bias is None else y + self.bias
