"""What every part of a request has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Schema(BaseModel):
    """A part of a request: unknown fields are ignored, numbers in quotes are not numbers."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def null_is_absent(cls, data: Any) -> Any:
        """Read null as not given, as OpenAI does."""
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data
