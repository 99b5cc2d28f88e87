"""The body of a chat, as far as OpenAI's is supported."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gateway.requests.base import MAX_ITEMS, Many, Schema, at_most
from gateway.requests.generation import GenerationRequest
from gateway.requests.sampling_fields import TopLogprobs
from gateway.requests.tool_fields import ToolCall, ToolFields


class TextPart(Schema):
    """A part of a message: text, or a refusal, which is text as well. There are no other kinds."""

    type: Literal["text", "refusal"]
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))


class ChatMessage(Schema):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    tool_calls: Many[ToolCall] = Field([])
    content: str | Annotated[Many[TextPart], at_most(MAX_ITEMS)]
    name: str | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = Field(None, validation_alias=AliasChoices("reasoning_content", "reasoning"))

    @model_validator(mode="before")
    @classmethod
    def replies_need_no_content(cls, data: Any) -> Any:
        """Accept a reply that only called, thought or refused, or was cut off before it spoke; and a tool's."""
        match data:
            case {"role": "assistant" | "tool"} if data.get("content") is None:
                return data | {"content": data.get("refusal") or ""}
        return data

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)

    @property
    def num_bytes(self) -> int:
        """How long the text is, and the arguments of calls: what no chat template leaves out."""
        return sum(len(text.encode()) for text in (self.text, *(call.function.arguments for call in self.tool_calls)))

    @property
    def rendered(self) -> dict[str, Any]:
        """The message as chat templates take it."""
        rest = {name: getattr(self, name) for name in ("name", "tool_call_id", "reasoning_content")}
        message = {"role": self.role, "content": self.text, "tool_calls": [call.rendered for call in self.tool_calls]}
        return {name: value for name, value in (message | rest).items() if value or name == "content"}


class PredictedOutput(Schema):
    """What the client roughly expects the reply to be. It makes the reply faster and never changes it."""

    type: Literal["content"]
    content: str | Annotated[Many[TextPart], at_most(MAX_ITEMS)]

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(GenerationRequest, ToolFields):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[Many[ChatMessage], Field(min_length=1), at_most(MAX_ITEMS)]
    prediction: PredictedOutput | None = None
    logprobs: bool = False
    top_logprobs: TopLogprobs = 0
    chat_template_kwargs: dict[str, Any] = Field({})
    include_reasoning: bool = True
    """Whether what the model thinks is part of the reply, as in vLLM; it counts either way."""

    @field_validator("top_logprobs")
    @classmethod
    def top_logprobs_need_logprobs(cls, value: int, info: ValidationInfo) -> int:
        """Refuse what OpenAI refuses."""
        if value and not info.data.get("logprobs", True):
            raise PydanticCustomError("unsupported", "needs logprobs to be true")
        return value

    @property
    def wants_logprobs(self) -> int | None:
        """The number of top log-probabilities, if any are wanted."""
        return self.top_logprobs if self.logprobs else None
