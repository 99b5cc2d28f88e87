"""What the runners of all devices have in common."""

from collections.abc import Sequence
from typing import Protocol

from shared.model.rows import Rows
from shared.model.step import Segment


class Runner(Protocol):
    """Runs forward passes of a model over the slots."""

    @property
    def device(self) -> str:
        """What it runs on, as it is reported."""

    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run the segments in one forward pass, and return each one's wanted rows."""

    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        """Copy the first keys and values of a slot to another one; return whether this device does."""
