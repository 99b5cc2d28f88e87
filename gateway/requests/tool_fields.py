"""The fields that offer tools to the model, and the messages in which it calls them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from gateway.requests.base import Many, Schema, at_most
from gateway.requests.json_text import parse_json
from shared.sampling_params import Grammar

MAX_TOOLS = 512
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]  # Anthropic's limit; OpenAI's is 64

InputGrammar = Annotated[Grammar | None, BeforeValidator(lambda value: value if isinstance(value, Grammar) else None)]


class Function(Schema):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] = Field({"type": "object", "properties": {}})
    strict: bool = False
    input_grammar: SkipJsonSchema[InputGrammar] = Field(None, exclude=True)
    """Of a free-text tool, whose one parameter is a text; no field of a request."""


class Tool(Schema):
    """A tool. Functions are the only kind."""

    type: Literal["function"]
    function: Function


class NamedFunction(Schema):
    """The name of a function."""

    name: str


class NamedTool(Schema):
    """The tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Schema):
    """The tools of which one may be called, or must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[Many[NamedTool], at_most(MAX_TOOLS)]

    @property
    def names(self) -> set[str]:
        """The names of their functions."""
        return {tool.function.name for tool in self.tools}


class AllowedChoice(Schema):
    """A choice of some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | Annotated[NamedTool | AllowedChoice, Field(discriminator="type")]


class ToolFields(Schema):
    """The fields of a request."""

    tools: Annotated[Many[Tool], at_most(MAX_TOOLS)] = Field([])
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True

    @field_validator("tool_choice")
    @classmethod
    def the_choice_is_a_tool(cls, value: ToolChoice, info: ValidationInfo) -> ToolChoice:
        """Refuse a choice that matches none of the tools."""
        if "tools" not in info.data:  # they are wrong themselves
            return value
        names = {tool.function.name for tool in info.data["tools"]}
        match value:
            case NamedTool():
                wrong = value.function.name not in names
            case AllowedChoice(allowed_tools=allowed):
                wrong = not allowed.names <= names or (allowed.mode == "required" and not allowed.names)
            case _:
                wrong = value == "required" and not names
        if wrong:
            raise PydanticCustomError("no_such_tool", "asks for a tool that is not among the tools")
        return value

    @model_validator(mode="after")
    def only_allowed_tools(self) -> Self:
        """Leave out the other tools: a model calls what it is told of."""
        if not isinstance(self.tool_choice, AllowedChoice):
            return self
        allowed = self.tool_choice.allowed_tools
        tools = [tool for tool in self.tools if tool.function.name in allowed.names]
        return self.model_copy(update={"tools": tools, "tool_choice": allowed.mode})

    @property
    def called(self) -> list[Function]:
        """The functions of which the model must call one."""
        match self.tool_choice:
            case NamedTool() as tool:
                return [function for function in self.tool_functions if function.name == tool.function.name]
            case "required":
                return self.tool_functions
        return []

    @property
    def callable(self) -> list[Function]:
        """The functions that the model may call but need not."""
        return self.tool_functions if self.tool_choice == "auto" else []

    @property
    def tool_functions(self) -> list[Function]:
        """The functions of the tools."""
        return [tool.function for tool in self.tools]

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that the model is told of, as chat templates take them."""
        return [tool.model_dump(exclude_unset=True) for tool in self.tools] if self.tool_choice != "none" else []


class CalledFunction(Schema):
    """The function that the model called, and its arguments: a JSON object as text."""

    name: str
    arguments: str = "{}"

    @field_validator("arguments")
    @classmethod
    def arguments_are_an_object(cls, value: str) -> str:
        """Read as empty what chat templates cannot render, as vLLM does: a reply that was cut off ends no chat."""
        try:
            return value if isinstance(parse_json(value), dict) else "{}"
        except ValueError:
            return "{}"


class ToolCall(Schema):
    """A call in a message of the assistant."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def rendered(self) -> dict[str, Any]:
        """The call as chat templates take it."""
        called = {"name": self.function.name, "arguments": parse_json(self.function.arguments)}
        return {"id": self.id, "type": "function", "function": called}
