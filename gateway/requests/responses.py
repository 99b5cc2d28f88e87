"""The request of OpenAI's Responses API, which is a chat in another form."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from gateway.requests.base import MAX_ITEMS, Many, Schema, at_most
from gateway.requests.chat import ChatRequest
from gateway.requests.grammar_fields import JsonSchema
from gateway.requests.no_op_fields import NoOpResponsesFields
from gateway.requests.sampling_fields import SamplingFields, TopLogprobs
from gateway.requests.tool_fields import MAX_TOOLS, FunctionName
from shared.errors import InvalidFieldError

Json = dict[str, Any]
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


class TextItem(Schema):
    """A part of an item's content."""

    type: Literal["input_text", "output_text", "reasoning_text", "summary_text", "text"]
    text: str


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


class FunctionOutputItem(Schema):
    """What a tool answered."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content


class ReasoningItem(Schema):
    """The model's reasoning before the message or call that follows."""

    type: Literal["reasoning"]
    content: Annotated[Many[TextItem], at_most(MAX_ITEMS)] = Field([])


class FunctionTool(Schema):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: Json = Field({"type": "object", "properties": {}})
    strict: bool = False


class NamedFunctionTool(Schema):
    """The function that the model must call."""

    type: Literal["function"]
    name: str


class TextFormat(Schema):
    """The form of the text."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    definition: JsonSchema | None = Field(None, alias="schema")


class TextOptions(Schema):
    """Options for the text."""

    format: TextFormat = TextFormat.model_construct()


class ResponsesRequest(SamplingFields, NoOpResponsesFields):
    """The body of POST /v1/responses. Nothing is stored: to continue a chat, send its items again."""

    model: str
    input: Annotated[
        str | Many[MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem],
        Field(min_length=1),
        at_most(MAX_ITEMS),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: TextOptions = TextOptions()
    tools: Annotated[Many[FunctionTool], at_most(MAX_TOOLS)] = Field([])
    tool_choice: Literal["none", "auto", "required"] | NamedFunctionTool = "auto"
    parallel_tool_calls: bool = True
    top_logprobs: TopLogprobs = 0
    include: Annotated[Many[str], at_most(100)] = Field([])
    metadata: Metadata = Field({})
    stream: bool = False

    @property
    def chat(self) -> ChatRequest:
        """The chat that this asks for. Raises InvalidFieldError."""
        tool_choice = self.tool_choice
        fields: Json = self.model_dump(include=set(SamplingFields.model_fields), exclude_unset=True) | {
            "model": self.model,
            "messages": self._messages(),
            "max_completion_tokens": self.max_output_tokens,
            "tools": [{"type": "function", "function": tool.model_dump(exclude_unset=True)} for tool in self.tools],
            "tool_choice": tool_choice
            if isinstance(tool_choice, str)
            else {"type": "function", "function": tool_choice.model_dump()},
            "parallel_tool_calls": self.parallel_tool_calls,
            "logprobs": LOGPROBS in self.include or self.top_logprobs > 0,
            "top_logprobs": self.top_logprobs,
        }
        form = self.text.format
        if form.type != "text":
            schema = {} if form.definition is None else {"schema": form.definition}
            fields["response_format"] = {"type": form.type, "json_schema": schema}
        try:
            return ChatRequest.model_validate(fields)
        except ValidationError as error:
            problem = error.errors()[0]
            field = str(problem["loc"][0]) if problem["loc"] else "input"
            raise InvalidFieldError(CHAT_FIELDS.get(field, field), problem["msg"]) from error

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
                case FunctionOutputItem():
                    messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
                case FunctionCallItem():
                    if not messages or messages[-1]["role"] != "assistant":
                        messages.append({"role": "assistant", "content": ""})
                    call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
                    messages[-1].setdefault("tool_calls", []).append(call)
            if thought and messages[-1]["role"] == "assistant":
                messages[-1]["reasoning_content"], thought = thought, ""
        return messages


def _text(content: Content) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
