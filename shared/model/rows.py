"""What a forward pass gave for the wanted rows of one segment."""

from collections.abc import Sequence
from functools import cached_property

import torch

NO_TOKEN = -1  # drawn where none can be: not a number anywhere, or nothing above -inf


class Rows:
    """Logits, and the tokens drawn from them where the device drew them itself."""

    def __init__(self, pieces: Sequence[torch.Tensor], drawn: Sequence[int] | None = None) -> None:
        """Keep the logits where they are: pieces of [rows, V] each, one after the other."""
        self._pieces = pieces
        self.drawn = drawn
        """The token that follows each row, if the segment said how it is drawn and the device could; or NO_TOKEN."""

    @cached_property
    def logits(self) -> torch.Tensor:
        """The logits of all rows, [rows, V], in this process's memory: brought here when first asked for."""
        pieces = [piece.cpu() for piece in self._pieces]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
