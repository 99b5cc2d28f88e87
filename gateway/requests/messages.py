"""The request of Anthropic's Messages API, which is a chat in another form."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag
from pydantic_core import PydanticCustomError

from gateway.requests.base import MAX_INTEGRAL, MAX_ITEMS, Many, Schema, at_most
from gateway.requests.chat import ChatRequest
from gateway.requests.grammar_fields import JsonSchema
from gateway.requests.kinds import OTHER, Other, by_type
from gateway.requests.sampling_fields import MAX_STOPS, SamplingFields, StopString
from gateway.requests.tool_fields import MAX_TOOLS, FunctionName
from gateway.requests.translation import translated

Json = dict[str, Any]
MESSAGES_FIELDS = {
    "max_completion_tokens": "max_tokens",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
}
"""Fields of a chat, which the planner's errors name, and the fields here that they are made from."""
UNSEEN = frozenset({"image", "document"})


def _is_no_picture(kind: str) -> str:
    if kind in UNSEEN:
        raise PydanticCustomError("unsupported", "the model reads text alone")
    return kind


class TextBlock(Schema):
    """A text."""

    type: Literal["text"]
    text: str


class OtherBlock(Schema):
    """A block that is skipped: what other servers' tools did. What the model would have to see is refused."""

    type: Annotated[str, Field(max_length=64), AfterValidator(_is_no_picture)]


class ThinkingBlock(Schema):
    """What the model thought."""

    type: Literal["thinking"]
    thinking: str


class ToolUseBlock(Schema):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: Json = Field({})


TextBlocks = Annotated[
    Many[Annotated[Annotated[TextBlock, Tag("text")] | Annotated[OtherBlock, OTHER], by_type("text")]],
    at_most(MAX_ITEMS),
]


class ToolResultBlock(Schema):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | TextBlocks = ""


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[OtherBlock, OTHER],
    by_type("text", "thinking", "tool_use", "tool_result"),
]


class Turn(Schema):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[Many[Block], at_most(MAX_ITEMS)]


class ClientTool(Schema):
    """A tool that the client runs."""

    type: Literal["custom"] = "custom"
    name: FunctionName
    description: str | None = None
    input_schema: Json
    strict: bool = False


class ToolChoice(Schema):
    """Which tool to call."""

    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str = ""
    disable_parallel_tool_use: bool = False


class Thinking(Schema):
    """Whether the model thinks first."""

    type: Annotated[str, Field(max_length=64)] = "disabled"


class OutputFormat(Schema):
    """The form of the answer."""

    type: Literal["json_schema"]
    definition: JsonSchema = Field(alias="schema")


class OutputConfig(Schema):
    """How to answer."""

    format: OutputFormat | None = None


class MessagesRequest(SamplingFields):
    """The body of POST /v1/messages."""

    model: str
    messages: Annotated[Many[Turn], Field(min_length=1), at_most(MAX_ITEMS)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGRAL)]
    system: str | TextBlocks = ""
    stop_sequences: Annotated[Many[StopString], at_most(MAX_STOPS)] = Field([])
    tools: Annotated[
        Many[
            Annotated[
                Annotated[ClientTool, Tag("custom")] | Annotated[Other, OTHER], by_type("custom", default="custom")
            ]
        ],
        at_most(MAX_TOOLS),
    ] = Field([])
    tool_choice: ToolChoice = ToolChoice()
    thinking: Thinking = Thinking()
    output_config: OutputConfig = OutputConfig()
    output_format: OutputFormat | None = None
    """What `output_config.format` was called in beta, which older clients send."""
    chat_template_kwargs: Json = Field({})
    stream: bool = False

    @property
    def prefill(self) -> str:
        """What the client has begun the reply with, which goes on from there."""
        last = self._messages()[-1]
        return str(last["content"]).rstrip() if _begins_reply(last) else ""

    @property
    def chat(self) -> ChatRequest:
        """The chat that this asks for. Raises InvalidFieldError."""
        choice, messages = self.tool_choice, self._messages()
        fields: Json = self.model_dump(include=set(SamplingFields.model_fields), exclude_unset=True) | {
            "model": self.model,
            "messages": messages,
            "max_completion_tokens": self.max_tokens,
            "stop": [*self.stop_strings, *self.stop_sequences],
            "tools": [_function(tool) for tool in self.tools if isinstance(tool, ClientTool)],
            "tool_choice": {"any": "required", "tool": {"type": "function", "function": {"name": choice.name}}}.get(
                choice.type, choice.type
            ),
            "parallel_tool_calls": not choice.disable_parallel_tool_use,
            "chat_template_kwargs": {"enable_thinking": self.thinking.type != "disabled"} | self.chat_template_kwargs,
        }
        if _begins_reply(messages[-1]):
            messages.pop()
        if form := self.output_config.format or self.output_format:
            schema = {"schema": form.definition}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        return translated(ChatRequest, fields, MESSAGES_FIELDS, "messages")

    def _messages(self) -> list[Json]:
        """Return the turns as messages: each answer of a tool is one of its own."""
        system = _text(self.system)
        messages: list[Json] = [{"role": "system", "content": system}] if system else []
        for turn in self.messages:
            blocks = [TextBlock(type="text", text=turn.content)] if isinstance(turn.content, str) else turn.content
            results = [block for block in blocks if isinstance(block, ToolResultBlock)]
            messages += [
                {"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(block.content)}
                for block in results
            ]
            message: Json = {"role": turn.role, "content": _text(blocks)}
            if thought := "\n".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock)):
                message["reasoning_content"] = thought
            if calls := [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]:
                message["tool_calls"] = calls
            if calls or message["content"] or not results:
                messages.append(message)
        return messages


class CountTokensRequest(MessagesRequest):
    """The body of POST /v1/messages/count_tokens."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGRAL)] = 1


def _text(content: str | Iterable[Schema]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.text for block in content if isinstance(block, TextBlock))


def _begins_reply(message: Json) -> bool:
    return message["role"] == "assistant" and "tool_calls" not in message


def _function(tool: ClientTool) -> Json:
    fields = tool.model_dump(include={"name", "description", "strict"}, exclude_unset=True)
    return {"type": "function", "function": fields | {"parameters": tool.input_schema}}


def _call(block: ToolUseBlock) -> Json:
    return {"id": block.id, "function": {"name": block.name, "arguments": json.dumps(block.input)}}
