"""The request of OpenAI's Responses API, which is a chat in another form."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, Field, Tag
from pydantic_core import PydanticCustomError

from gateway.requests.base import MAX_INTEGRAL, MAX_ITEMS, Many, Schema, at_most
from gateway.requests.chat import ChatRequest
from gateway.requests.grammar_fields import JsonSchema
from gateway.requests.kinds import OTHER, Known, by_type
from gateway.requests.no_op_fields import NoOpResponsesFields
from gateway.requests.responses_tools import AllowedTools, AnyTool, CustomTool, NamedTool, offered
from gateway.requests.sampling_fields import SamplingFields, TopLogprobs
from gateway.requests.tool_fields import MAX_TOOLS
from gateway.requests.translation import translated

Json = dict[str, Any]
Echoed = Annotated[str, Field(max_length=1024)]
GUIDED = {"lark": "grammar", "regex": "regex"}
STORED = frozenset({"item_reference", "compaction"})
Metadata = Annotated[  # with OpenAI's limits
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], at_most(16)
]
LOGPROBS = "message.output_text.logprobs"
CHAT_FIELDS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "logprobs": "include",
}
"""Fields of a chat, which the planner's errors name, and the fields here that they are made from."""


def _is_here(kind: str) -> str:
    if kind in STORED:
        raise PydanticCustomError("unsupported", "refers to what is stored, and nothing is; send the items themselves")
    return kind


class TextItem(Schema):
    """A part of an item's content."""

    type: Literal["input_text", "output_text", "reasoning_text", "summary_text", "text", "refusal"]
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))


Content = str | Annotated[Many[TextItem], at_most(MAX_ITEMS)]


class MessageItem(Schema):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class FunctionCallItem(Schema):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CustomCallItem(Schema):
    """A call of a free-text tool."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str

    @property
    def arguments(self) -> str:
        """The text as a function's arguments."""
        return json.dumps({"input": self.input}, ensure_ascii=False)


class FunctionOutputItem(Schema):
    """What a tool answered."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: Content


class OtherItem(Schema):
    """An item that is skipped: what other servers' tools did. What is stored elsewhere cannot be."""

    type: Annotated[str, Field(max_length=64), AfterValidator(_is_here)]


class ReasoningItem(Schema):
    """The model's reasoning before the message or call that follows."""

    type: Literal["reasoning"]
    content: Annotated[Many[TextItem], at_most(MAX_ITEMS)] = Field([])


class Reasoning(Schema):
    """How to think."""

    effort: Annotated[str, Field(max_length=64)] | None = None
    summary: Annotated[str, Field(max_length=64)] | None = None


class AnswerFormat(Schema):
    """The form of the text."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    definition: JsonSchema | None = Field(None, alias="schema")


class TextOptions(Schema):
    """Options for the text."""

    format: AnswerFormat = AnswerFormat.model_construct()


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[FunctionOutputItem, Tag("custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[OtherItem, OTHER],
    by_type(
        "message", "function_call", "custom_tool_call", "function_call_output", "custom_tool_call_output", "reasoning",
        default="message",
    ),
]  # fmt: skip


class ResponsesRequest(SamplingFields, NoOpResponsesFields):
    """The body of POST /v1/responses. Nothing is stored: to continue a chat, send its items again."""

    model: str = ""
    input: str | Annotated[Many[Item], at_most(MAX_ITEMS)] = ""
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGRAL)] | None = None
    text: TextOptions = TextOptions()
    tools: Annotated[Many[AnyTool], at_most(MAX_TOOLS), Known] = Field([])
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools = "auto"
    parallel_tool_calls: bool = True
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    reasoning: Reasoning = Reasoning()
    prompt_cache_key: Echoed | None = None
    safety_identifier: Echoed | None = None
    top_logprobs: TopLogprobs = 0
    include: Annotated[Many[str], at_most(100)] = Field([])
    metadata: Metadata = Field({})
    stream: bool = False

    @property
    def written(self) -> CustomTool | None:
        """The free-text tool that the reply is the input of: the one that must be called, with a grammar of its own."""
        choice, tools = self.tool_choice, offered(self.tools)
        if isinstance(choice, NamedTool):
            tools = [one for one in tools if one.name == choice.name]
        elif choice != "required":
            return None
        tool = tools[0].tool if len(tools) == 1 else None
        return tool if isinstance(tool, CustomTool) and tool.grammar else None

    @property
    def chat(self) -> ChatRequest:
        """The chat that this asks for. Raises InvalidFieldError."""
        written = self.written
        fields: Json = self.model_dump(include=set(SamplingFields.model_fields), exclude_unset=True) | {
            "model": self.model,
            "messages": self._messages(),
            "max_completion_tokens": self.max_output_tokens,
            "tools": [one.function for one in offered(self.tools)],
            "tool_choice": self.tool_choice if isinstance(self.tool_choice, str) else self.tool_choice.chat,
            "parallel_tool_calls": self.parallel_tool_calls,
            "logprobs": LOGPROBS in self.include or self.top_logprobs > 0,
            "top_logprobs": self.top_logprobs,
        }
        if self.reasoning.effort == "none":
            fields["chat_template_kwargs"] = {"enable_thinking": False}
        form = self.text.format
        if written:
            fields |= {"tool_choice": "auto", f"guided_{GUIDED[written.format.syntax]}": written.format.definition}
        elif form.type != "text":
            schema = {} if form.definition is None else {"schema": form.definition}
            fields["response_format"] = {"type": form.type, "json_schema": schema}
        return translated(ChatRequest, fields, CHAT_FIELDS, "input")

    def _messages(self) -> list[Json]:
        """Return the items as messages: consecutive reasoning, text and calls of the model become one."""
        messages: list[Json] = [{"role": "system", "content": self.instructions}] if self.instructions else []
        items = [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        thought = ""
        for item in items:
            match item:
                case MessageItem():
                    messages.append({"role": item.role, "content": _text(item.content)})
                case ReasoningItem():
                    thought += _text(item.content)
                    continue
                case OtherItem():
                    continue
                case FunctionOutputItem():
                    messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
                case FunctionCallItem() | CustomCallItem():
                    if not messages or messages[-1]["role"] != "assistant":
                        messages.append({"role": "assistant", "content": ""})
                    call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
                    messages[-1].setdefault("tool_calls", []).append(call)
            if thought and messages[-1]["role"] == "assistant":
                messages[-1]["reasoning_content"], thought = thought, ""
        return messages or [{"role": "user", "content": ""}]  # clients ask nothing to see who is there


def _text(content: Content) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
