"""The numbers of rows with which a product gives each row the same bits."""

from bisect import bisect_left
from collections.abc import Iterable

from shared.model.runner import MAX_ROWS


class RowCounts:
    """The numbers of rows that one product may have; a pass with any other number of rows is run in blocks."""

    def __init__(self, counts: Iterable[int]) -> None:
        """Allow these, at least one."""
        self.counts = tuple(sorted(counts))
        self._blocks: dict[int, list[int]] = {}

    def blocks(self, num_rows: int) -> list[int]:
        """Return the block sizes for this many rows: as many of the largest as fit, then the rest, padded."""
        if num_rows not in self._blocks:
            whole, rest = divmod(num_rows, self.counts[-1])
            last = [self.counts[bisect_left(self.counts, rest)]] if rest else []
            self._blocks[num_rows] = [self.counts[-1]] * whole + last
        return self._blocks[num_rows]

    def pad(self, num_rows: int) -> int:
        """Return how many rows these blocks have together."""
        return sum(self.blocks(num_rows))


ANY_COUNT = RowCounts(range(1, MAX_ROWS + 1))
