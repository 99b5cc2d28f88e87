"""What every part of a request has in common."""

from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

T = TypeVar("T")

MAX_INTEGRAL = 2**63
MAX_ITEMS = 10_000
"""The most messages, and the most parts of one."""

Many = Annotated[list[T], Field(fail_fast=True)]
"""A list that tells of its first wrong value alone: an error for each of many would take seconds."""


def _one_by_one(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, dict):
        return validate(value)
    return {key: one for item in value.items() for key, one in validate(dict([item])).items()}


FailFast = WrapValidator(_one_by_one)
"""The same for an object."""


def at_most(limit: int) -> BeforeValidator:
    """Refuse more entries before any of them is looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, dict | list) and len(value) > limit:
            raise PydanticCustomError("too_many", f"has more than {limit} entries")
        return value

    return BeforeValidator(check)


def _integral(value: Any) -> Any:
    """Return a whole number as an integer, also in lists."""
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_INTEGRAL:
        return int(value)
    if isinstance(value, list) and not {float, list}.isdisjoint(map(type, value)):
        return [_integral(one) for one in value]
    return value


class Schema(BaseModel):
    """A part of a request: unknown fields are ignored, numbers in quotes are not numbers."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def null_is_absent(cls, data: Any) -> Any:
        """Read null as not given, as OpenAI does, and 16.0 as 16, which is the same number in JSON."""
        if not isinstance(data, dict):
            return data
        return {key: _integral(value) for key, value in data.items() if value is not None}
