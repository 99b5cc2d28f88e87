"""What chats and completions have in common."""

from abc import abstractmethod
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from gateway.requests.base import MAX_INTEGRAL, Schema
from gateway.requests.grammar_fields import GrammarFields
from gateway.requests.no_op_fields import NoOpFields
from gateway.requests.sampling_fields import SamplingFields


class StreamOptions(Schema):
    """How to stream."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    """Whether each chunk tells how many tokens there are so far, with include_usage, as in vLLM."""


class GenerationRequest(SamplingFields, GrammarFields, NoOpFields):
    """What chats and completions have in common."""

    model: str = ""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGRAL)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGRAL)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    best_of: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    return_token_ids: bool = False
    """Whether to tell the ids of prompt and reply, as vLLM does."""
    return_tokens_as_token_ids: bool = False
    """Whether log-probabilities name tokens by their ids, as vLLM's do."""

    @field_validator("best_of")
    @classmethod
    def best_of_equals_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Refuse to rank: that needs logprobs."""
        if value != info.data.get("n", value):
            raise PydanticCustomError("unsupported", "is not supported unless it equals n; leave it out")
        return value

    @property
    @abstractmethod
    def wants_logprobs(self) -> int | None:
        """How many of the likeliest tokens to report besides the sampled one; None for no log-probabilities at all."""

    @property
    def wants_echo(self) -> bool:
        """Whether the reply begins with the prompt."""
        return False

    @property
    def limit(self) -> tuple[str, int | None]:
        """The name of the field that limits the reply, and its value in tokens."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens
