"""The body of a text completion."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from gateway.requests.base import MAX_INTEGRAL, Many
from gateway.requests.generation import GenerationRequest
from gateway.requests.sampling_fields import TopLogprobs


class CompletionRequest(GenerationRequest):
    """The body of POST /v1/completions."""

    prompt: Annotated[str | Many[str] | Many[int] | Many[Many[int]], Field(min_length=1)]
    suffix: str = ""
    echo: bool = False
    max_tokens: Annotated[int, Field(ge=0, le=MAX_INTEGRAL)] | None = None
    logprobs: TopLogprobs | None = None

    @field_validator("echo")
    @classmethod
    def echo_is_of_a_beginning(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001
        """Refuse to repeat a prompt that the reply does not continue."""
        if value and info.data.get("suffix"):
            raise PydanticCustomError("unsupported", "is not supported with suffix")
        return value

    @property
    def wants_echo(self) -> bool:
        """Whether the reply begins with the prompt."""
        return self.echo

    @property
    def wants_logprobs(self) -> int | None:
        """The number of top log-probabilities, if any are wanted."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or more: each a text or token ids."""
        match self.prompt:
            case [int(), *_] as token_ids:
                return [token_ids]  # type: ignore[list-item]  # the first tells all
            case list(prompts):
                return list(prompts)  # type: ignore[arg-type]  # likewise
            case text:
                return [text]
