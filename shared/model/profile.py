"""What passes take on a simulated device."""

import tomllib
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from shared.errors import ModelError
from shared.interpolation import pass_seconds

PROFILES = Path(__file__).parent / "devices" / "profiles"


@checked(frozen=True)
class Profile:
    """What a forward pass of one model takes on one accelerator, and where the figures come from."""

    source: str
    assumed: str
    """Which figures nobody has published."""
    rows: list[int]
    milliseconds: list[float]
    """Of a pass of one session with so many `rows`, which ascend; straight lines join them."""
    milliseconds_per_session: float
    """For each session of a pass beyond the first."""

    def seconds(self, num_rows: int, num_sessions: int = 1) -> float:
        """Return what a pass takes."""
        more_sessions = self.milliseconds_per_session * (num_sessions - 1)
        return (pass_seconds(self.rows, self.milliseconds, num_rows) + more_sessions) / 1000

    @classmethod
    def load(cls, name: str) -> Self:
        """Read the profile of this name, or of this path. Raises ModelError."""
        path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
        try:
            return TypeAdapter(cls).validate_python(tomllib.loads(path.read_text()))
        except (OSError, ValidationError, tomllib.TOMLDecodeError) as error:
            raise ModelError(f"profile {name}: {error}") from error
