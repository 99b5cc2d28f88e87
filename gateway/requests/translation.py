"""Requests that are made from those of other APIs, and errors that name the fields which the client sent."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.requests.generation import GenerationRequest
from shared.errors import InvalidFieldError

Made = TypeVar("Made", bound=GenerationRequest)
Names = Mapping[str, str]
"""Fields of the request that is made, and those that they are made from where these have other names."""


def translated(kind: type[Made], fields: Mapping[str, Any], names: Names, whole: str) -> Made:
    """Return the request with these fields. Raises InvalidFieldError: it names `whole` if no one field is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        field = str(problem["loc"][0]) if problem["loc"] else whole
        raise InvalidFieldError(names.get(field, field), problem["msg"]) from error


@contextmanager
def renamed(names: Names) -> Iterator[None]:
    """Let the InvalidFieldErrors of the block name the client's fields."""
    try:
        yield
    except InvalidFieldError as error:
        raise type(error)(names.get(error.field, error.field), error.problem) from error
