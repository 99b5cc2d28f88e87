"""How long passes take on a simulated device."""

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
    """How long a forward pass of one model takes on one accelerator, and where the figures come from."""

    source: str
    assumed: str
    """Which figures are assumptions, as nobody has published them."""
    rows: list[int]
    milliseconds: list[float]
    """The time of a pass with one session, for each number of `rows` (ascending); interpolated linearly."""
    milliseconds_per_session: float
    """The extra time for each session of a pass after the first."""

    def seconds(self, num_rows: int, num_sessions: int = 1) -> float:
        """Return how long a pass takes."""
        more_sessions = self.milliseconds_per_session * (num_sessions - 1)
        return (pass_seconds(self.rows, self.milliseconds, num_rows) + more_sessions) / 1000

    @classmethod
    def load(cls, name: str) -> Self:
        """Read the profile with this name or at this path. Raises ModelError."""
        path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
        try:
            return TypeAdapter(cls).validate_python(tomllib.loads(path.read_text()))
        except (OSError, ValidationError, tomllib.TOMLDecodeError) as error:
            raise ModelError(f"profile {name}: {error}") from error
