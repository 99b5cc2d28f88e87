"""Which of the graphs run, and what they draw."""

from dataclasses import dataclass
from typing import Literal, Self

from shared.model.devices.static.graphs import GraphKey, GraphSizes
from shared.sampling_params import SamplingParams

Draws = Literal["all", "greedy", "nothing"]


@dataclass(frozen=True)
class GraphChoice:
    """What is used beside the widest verify graphs, since it gives a row the bits that these give it.

    With nothing beside them, all rows go through the verify graph of most rows in the bucket of their position.
    """

    row_counts: tuple[int, ...]
    """Rows of a slot in the verify graphs that run, ascending; the last is the most that the set has."""
    wide_prefill: bool = False
    """Whether prompts run through the prefill graphs; else they run through verify graphs, as drafts do."""
    larger_buckets: bool = False
    """Whether a session runs with the keys of a longer one beside it; else each bucket of a pass is a call."""
    draws: Draws = "nothing"
    """What is drawn in the graph: every row that needs no more than its own logits, the greedy ones, or nothing."""
    prefill_us: int = 0
    """What a prompt of a prefill and a verify took by these graphs, in microseconds."""
    verify_us: int = 0
    """What the same prompt took by verify graphs."""

    @classmethod
    def widest(cls, sizes: GraphSizes) -> Self:
        """Choose nothing that needs a trial."""
        return cls(sizes.row_counts[-1:])

    @classmethod
    def everything(cls, sizes: GraphSizes) -> Self:
        """Choose all graphs, untried."""
        return cls(sizes.row_counts, wide_prefill=True, larger_buckets=True, draws="all")

    def uses(self, key: GraphKey) -> bool:
        """Return whether this graph runs."""
        return self.wide_prefill if key.kind == "prefill" else key.num_rows in self.row_counts

    def draws_in_graph(self, params: SamplingParams) -> bool:
        """Return whether the graph draws with these parameters."""
        return self.draws == "all" or (self.draws == "greedy" and params.greedy)
