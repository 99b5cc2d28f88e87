"""The requests of the OpenAI API, as far as they are supported, and the `speculative` object that is ours."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gateway.no_op_fields import NoOpFields

StopString = Annotated[str, Field(min_length=1)]


class _Schema(BaseModel):
    """What every part of a request has in common: unknown fields are ignored, numbers in quotes are not numbers."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def null_is_absent(cls, data: Any) -> Any:
        """Read null as not given, as OpenAI does."""
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class TextPart(_Schema):
    """A part of a message. Text is the only kind."""

    type: Literal["text"]
    text: str


class Message(_Schema):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | list[TextPart]
    name: str | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] = []

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(_Schema):
    """How to stream."""

    include_usage: bool = False


class Speculative(_Schema):
    """How to speculate. None of it changes the tokens of the reply."""

    enabled: bool = True
    k: Annotated[int, Field(ge=1)] | None = None
    metrics: bool = False


class GenerationRequest(_Schema, NoOpFields):
    """What chats and completions have in common."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] = 0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] = []
    n: Annotated[int, Field(ge=1, le=128)] = 1
    best_of: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    speculative: Speculative = Speculative()

    @field_validator("best_of")
    @classmethod
    def best_of_equals_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Refuse to rank: that needs logprobs."""
        if value != info.data.get("n"):
            raise PydanticCustomError("unsupported", "is not supported unless it equals n; leave it out")
        return value

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none to 16."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def limit(self) -> tuple[str, int | None]:
        """The name of the field that limits the reply, and its value in tokens."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens


class ChatRequest(GenerationRequest):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]


class CompletionRequest(GenerationRequest):
    """The body of POST /v1/completions."""

    prompt: Annotated[str | list[str] | list[int] | list[list[int]], Field(min_length=1)]

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
