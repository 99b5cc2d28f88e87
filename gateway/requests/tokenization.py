"""The bodies of /tokenize and /detokenize."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gateway.requests.base import MAX_ITEMS, Many, Schema, at_most
from gateway.requests.chat import ChatMessage


class TokenizeRequest(Schema):
    """The body of POST /tokenize, as vLLM has it: a text or a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[Many[ChatMessage], Field(min_length=1), at_most(MAX_ITEMS)] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def one_of_two(self) -> Self:
        """Refuse a body with neither, or with both."""
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_of_two", "one of prompt and messages is needed")
        return self


class DetokenizeRequest(Schema):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: Many[int]
