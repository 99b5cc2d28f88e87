"""Instructor, which asks for instances of a class: by a tool call, or by a schema."""

from typing import Any, Literal

import instructor
from features import MODEL, QUESTION, ROOM, SEED, URL, show
from openai import OpenAI
from pydantic import BaseModel, Field

ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "seed": SEED}
ask["max_tokens"] = ROOM


class Distance(BaseModel, extra="forbid"):
    """A distance."""

    length: int = Field(ge=0, le=999)
    unit: Literal["miles", "km"]


def client(mode: instructor.Mode) -> instructor.Instructor:
    """Return a client that asks in this way."""
    return instructor.from_openai(OpenAI(base_url=URL, api_key="none", max_retries=0), mode=mode)


def stream() -> str:
    """Ask for an instance while it grows."""
    *_, last = client(instructor.Mode.TOOLS).create_partial(response_model=Distance, max_retries=0, **ask)
    return repr(Distance.model_validate(last.model_dump()))


def tool() -> str:
    """Ask by a tool call."""
    return repr(client(instructor.Mode.TOOLS).create(response_model=Distance, max_retries=0, **ask))


def structured() -> str:
    """Ask by a schema."""
    return repr(client(instructor.Mode.JSON_SCHEMA).create(response_model=Distance, max_retries=0, **ask))


show(stream, tool, structured)
