"""The requests of the OpenAI API, as far as they are supported, and the `speculative` object that is ours."""

from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gateway.grammar_fields import GrammarFields
from gateway.no_op_fields import NoOpFields
from gateway.sampling_fields import SamplingFields, TopLogprobs
from gateway.schema import Schema
from gateway.tool_fields import ToolCall, ToolFields


class TextPart(Schema):
    """A part of a message. Text is the only kind."""

    type: Literal["text"]
    text: str


class Message(Schema):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    tool_calls: list[ToolCall] = Field([])
    content: str | list[TextPart]
    name: str | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def calls_need_no_content(cls, data: Any) -> Any:
        """Take a message that calls tools and says nothing."""
        silent = isinstance(data, dict) and data.get("tool_calls") and data.get("content") is None
        return data | {"content": ""} if silent else data

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)

    @property
    def rendered(self) -> dict[str, Any]:
        """The message as chat templates take it."""
        rest = {name: getattr(self, name) for name in ("name", "tool_call_id", "reasoning_content")}
        message = {"role": self.role, "content": self.text, "tool_calls": [call.rendered for call in self.tool_calls]}
        return {name: value for name, value in (message | rest).items() if value or name == "content"}


class StreamOptions(Schema):
    """How to stream."""

    include_usage: bool = False


class PredictedOutput(Schema):
    """What the client expects the reply to be, more or less. It makes the reply faster and never other."""

    type: Literal["content"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class GenerationRequest(SamplingFields, GrammarFields, NoOpFields):
    """What chats and completions have in common."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    best_of: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @field_validator("best_of")
    @classmethod
    def best_of_equals_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Refuse to rank: that needs logprobs."""
        if value != info.data.get("n"):
            raise PydanticCustomError("unsupported", "is not supported unless it equals n; leave it out")
        return value

    @property
    @abstractmethod
    def wants_logprobs(self) -> int | None:
        """Of how many of the likeliest tokens the log-probabilities are wanted, besides the sampled one's; or None."""

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


class ChatRequest(GenerationRequest, ToolFields):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    prediction: PredictedOutput | None = None
    logprobs: bool = False
    top_logprobs: TopLogprobs = 0
    chat_template_kwargs: dict[str, Any] = Field({})

    @field_validator("top_logprobs")
    @classmethod
    def top_logprobs_need_logprobs(cls, value: int, info: ValidationInfo) -> int:
        """Refuse what OpenAI refuses."""
        if value and not info.data.get("logprobs"):
            raise PydanticCustomError("unsupported", "needs logprobs to be true")
        return value

    @property
    def wants_logprobs(self) -> int | None:
        """The number of top log-probabilities, if any are wanted."""
        return self.top_logprobs if self.logprobs else None


class CompletionRequest(GenerationRequest):
    """The body of POST /v1/completions."""

    prompt: Annotated[str | list[str] | list[int] | list[list[int]], Field(min_length=1)]
    echo: bool = False
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: TopLogprobs | None = None

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


class TokenizeRequest(Schema):
    """The body of POST /tokenize, as vLLM has it: a text or a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def one_of_two(self) -> Self:
        """Refuse neither and both."""
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_of_two", "one of prompt and messages is needed")
        return self


class DetokenizeRequest(Schema):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[int]
