"""Settings of the draft service."""

from typing import Literal

from pydantic import Field

from shared.model.settings import EngineSettings

NO_MODEL = "none"


class DraftSettings(EngineSettings):
    """How the draft service runs."""

    model: str
    """A Hugging Face folder, a .gguf file, a hub id, or the name of a pair. `none` serves lookups alone."""
    cache_share: float = Field(0.25, gt=0, le=1)
    """How much of the memory that is left when the weights are loaded may go to keys and values, where num_slots or
    max_length is not given: less than a target's share, since only speed depends on it."""
    address: str = "127.0.0.1:50051"
    """Where it listens."""
    lookup_min_match: int = Field(3, ge=1)
    """How many tokens a lookup must match before it proposes what followed them."""
    memory_tokens: int = Field(100_000, ge=0)
    """How many tokens of what was said are remembered for each key and salt, to propose them again; 0 for none."""
    memory_total_tokens: int = Field(500_000, ge=0)
    """How many of them in all: above it, what was used longest ago is forgotten, first of keys whose salts hold more
    than their share. Each takes 130 bytes."""
    ahead: Literal["auto", "on", "off"] = "auto"
    """Whether the draft model works ahead while the target verifies; `auto`: only where the two do not share a CPU."""
    grace_seconds: float = Field(30, ge=0)
    """How many seconds shutdown waits for open streams."""

    @property
    def works_ahead(self) -> bool:
        """Whether the draft model works ahead."""
        return self.device != "cpu" if self.ahead == "auto" else self.ahead == "on"
