"""Requests that are made from those of other APIs, and errors that name the fields which the client sent."""

import re
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
        raise InvalidFieldError(names.get(field, field), _told(problem["msg"], names)) from error


@contextmanager
def renamed(names: Names) -> Iterator[None]:
    """Let the InvalidFieldErrors of the block name the client's fields."""
    try:
        yield
    except InvalidFieldError as error:
        raise type(error)(names.get(error.field, error.field), _told(error.problem, names)) from error


def _told(problem: str, names: Names) -> str:
    """Return a problem so that it names the client's fields, too, as far as a name cannot be a word of the text."""
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda found: names.get(found[0], found[0]), problem)
