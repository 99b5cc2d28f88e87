"""Settings of the target service."""

from pydantic import Field

from shared.model.engine_settings import EngineSettings


class TargetSettings(EngineSettings):
    """How the target service runs."""

    address: str = "127.0.0.1:50052"
    """Where it listens."""
    grace_seconds: float = Field(30, ge=0)
    """How long a stop waits for open streams; under torchrun no longer than its --shutdown-timeout, 30 s."""
