"""Settings of the target service."""

from pydantic import Field, field_validator

from shared.model.settings import EngineSettings, Quant


class TargetSettings(EngineSettings):
    """How the target service runs."""

    address: str = "127.0.0.1:50052"
    """Where it listens."""
    grace_seconds: float = Field(30, ge=0)
    """How many seconds shutdown waits for open streams; under torchrun at most its --shutdown-timeout, 30 s."""
    quant: Quant = ""
    """The weights: `int8` rounds them to 8 bits, and activations with them; `gguf` keeps a .gguf file's own blocks;
    `auto` takes what is fastest here; `none` leaves them. If empty, `auto` for a rounded .gguf, else `none`."""
    allow_inexact: bool = False
    """Where no exact way to compute was found, serve even though output may depend on speculation and on load."""

    @field_validator("quant")
    @classmethod
    def _decides(cls, quant: Quant) -> Quant:
        if quant == "int4":
            raise ValueError("a target decides the tokens, and weights of 4 bits are for drafts alone")
        return quant
