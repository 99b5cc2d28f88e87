"""How the ranks join their parts of a tensor in the middle of a pass."""

from functools import reduce

import torch
import torch.distributed as dist
from torch import nn

from shared.model.distributed.ranks import num_ranks, rank
from shared.model.settings import CollectiveKind


class Collective(nn.Module):
    """Gives every rank the parts of all of them, bit by bit.

    Which rank this is stands in a tensor and not in the code, so that all ranks trace the same graph, and it is
    compiled once (NxD's SPMDRank does likewise).
    """

    def __init__(self, kind: CollectiveKind) -> None:
        """Join by gathering, or by summing parts that are padded to the whole."""
        super().__init__()
        self.kind, self.size = kind, num_ranks()
        ranks = torch.arange(self.size, dtype=torch.int32)
        self.own: torch.Tensor  # [ranks] bool
        self.register_buffer("own", ranks == rank(), persistent=False)

    def gathered(self, part: torch.Tensor) -> torch.Tensor:
        """Return the parts in the order of ranks: [ranks, ...]."""
        if self.kind == "gather":
            parts = part.new_empty(self.size * part.shape[0], *part.shape[1:])
            dist.all_gather_single(parts, part.contiguous())
            return parts.view(self.size, *part.shape)
        own = self.own.view(-1, *[1] * part.dim())
        nothing = -torch.zeros_like(part)  # to -0.0 every number can be added without a change of its bits, even -0.0
        parts = torch.where(own, part, nothing)
        dist.all_reduce(parts)
        return parts

    def summed(self, part: torch.Tensor) -> torch.Tensor:
        """Add the parts in rank order: in a reduction, a row's bits may depend on its place in the tensor."""
        return reduce(torch.add, self.gathered(part).unbind())

    def joined(self, part: torch.Tensor) -> torch.Tensor:
        """Return [..., ranks * n] from a part of [..., n]."""
        return torch.cat(self.gathered(part).unbind(), -1)

    def greatest(self, values: torch.Tensor) -> torch.Tensor:
        """Return the greatest of what the ranks have at each place, or NaN where one of them has that."""
        return self.gathered(values).amax(0)

    def first_of_greatest(
        self, values: torch.Tensor, token_ids: torch.Tensor, last: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the greatest of the ranks' values, and the least of the tokens that have it, at most `last`.

        values: [...] float32. token_ids: [...] int32, below 2^24, so that a pair is two float32 and travels as one.
        """
        pairs = self.gathered(torch.stack([values, token_ids.float()], -1))  # [ranks, ..., 2]
        values, token_ids = pairs[..., 0], pairs[..., 1].int()
        greatest = values.amax(0)
        return greatest, torch.where(values == greatest, token_ids, last).amin(0)
