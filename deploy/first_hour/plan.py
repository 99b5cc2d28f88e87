"""What an hour of a device is spent on: a .toml file of deploy/benchmarks/trn2."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Plan:
    """Models, where they run, and how long each kind of step may take."""

    title: str
    target: str
    """A folder or hub id; the name of a pair if the draft's is the same."""
    draft: str
    dtype: str
    num_slots: int
    ranks: int
    """Processes of the target, a core each."""
    target_cores: str
    draft_cores: str
    settings: Mapping[str, str | int]
    """Of both services."""
    minutes: Mapping[str, float]
    """At most, by kind of step: doctor, reload, compile, start, texts, benchmark."""
    texts: Mapping[str, int]
    """`limit` and `max_tokens` of the test of texts."""
    workloads: Mapping[str, Mapping[str, str | int]]
    """By name, flags of `python -m benchmarks trn2`."""
    collective: str = "gather"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raises OSError, and TypeError for keys that are missing or unknown."""
        return cls(**tomllib.loads(path.read_text("utf-8")))

    @property
    def rehearsal(self) -> bool:
        """Whether it does without a device."""
        return self.settings.get("compile_backend", "neuron") != "neuron"

    def arranged(self, held: Mapping[str, bool]) -> Self:
        """Return the plan with ranks that can do what was tried so far: with another collective, or on one core."""
        if self.ranks == 1 or held.get("reload-gather", True):
            return self
        if held.get("reload-all_reduce", True):
            return replace(self, collective="all_reduce")
        return replace(self, ranks=1, target_cores=self.target_cores.partition("-")[0])

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)
