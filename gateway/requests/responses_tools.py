"""The tools of the Responses API: functions, free-text tools, and namespaces of both; others are skipped."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from gateway.requests.base import Many, Schema, at_most
from gateway.requests.grammar_fields import GrammarText
from gateway.requests.kinds import OTHER, Known, Other, by_type
from gateway.requests.tool_fields import MAX_TOOLS, FunctionName
from shared.sampling_params import Grammar

Json = dict[str, Any]


class FunctionTool(Schema):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: Json = Field({"type": "object", "properties": {}})
    strict: bool = False


class TextFormat(Schema):
    """The form of a free-text tool's input."""

    type: Literal["text", "grammar"] = "text"
    syntax: Literal["lark", "regex"] = "lark"
    definition: GrammarText = ""


class CustomTool(Schema):
    """A tool that takes one text."""

    type: Literal["custom"]
    name: FunctionName
    description: str | None = None
    format: TextFormat = TextFormat()

    @property
    def parameters(self) -> Json:
        """The text as the parameter of a function, which is what models know to call."""
        form = self.format
        held = {"pattern": f"^(?:{form.definition})$"} if form.type == "grammar" and form.syntax == "regex" else {}
        text = {"type": "string", "description": "The whole input, as one text."} | held
        return {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}

    @property
    def grammar(self) -> Grammar | None:
        """What the text conforms to, if anything."""
        form = self.format
        return Grammar(form.syntax, form.definition) if form.type == "grammar" and form.definition else None

    @property
    def told(self) -> str:
        """The description, with the grammar that the input conforms to."""
        form = self.format
        grammar = f"\nThe input conforms to this {form.syntax} grammar:\n{form.definition}" if form.definition else ""
        return (self.description or "") + grammar


Tool = Annotated[
    Annotated[FunctionTool, Tag("function")] | Annotated[CustomTool, Tag("custom")] | Annotated[Other, OTHER],
    by_type("function", "custom"),
]


class Namespace(Schema):
    """Tools under one name."""

    type: Literal["namespace"]
    name: Annotated[str, Field(max_length=128)]
    description: str = ""
    tools: Annotated[Many[Tool], at_most(MAX_TOOLS), Known] = Field([])


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[CustomTool, Tag("custom")]
    | Annotated[Namespace, Tag("namespace")]
    | Annotated[Other, OTHER],
    by_type("function", "custom", "namespace"),
]


class NamedTool(Schema):
    """The tool that the model must call."""

    type: Literal["function", "custom"]
    name: str

    @property
    def chat(self) -> Json:
        """The choice as a chat has it."""
        return {"type": "function", "function": {"name": self.name}}


class AllowedTools(Schema):
    """The tools of which the model may call one, or must; those of kinds that are skipped are skipped here, too."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[
        Many[
            Annotated[
                Annotated[NamedTool, Tag("function")] | Annotated[NamedTool, Tag("custom")] | Annotated[Other, OTHER],
                by_type("function", "custom"),
            ]
        ],
        at_most(MAX_TOOLS),
        Known,
    ]

    @property
    def chat(self) -> Json:
        """The choice as a chat has it."""
        tools = [tool.chat for tool in self.tools if isinstance(tool, NamedTool)]
        return {"type": self.type, self.type: {"mode": self.mode, "tools": tools}}


@dataclass(frozen=True)
class Offered:
    """A tool as the model is told of it."""

    name: str
    """What the model calls it."""
    tool: FunctionTool | CustomTool
    namespace: str | None = None

    @property
    def function(self) -> Json:
        """The tool as a chat has it."""
        tool = self.tool
        if isinstance(tool, CustomTool):
            fields: Json = {"description": tool.told, "parameters": tool.parameters, "input_grammar": tool.grammar}
        else:
            fields = tool.model_dump(exclude_unset=True, exclude={"type", "name"})
        return {"type": "function", "function": {"name": self.name} | fields}


def offered(tools: Iterable[FunctionTool | CustomTool | Namespace | Other]) -> list[Offered]:
    """Return the tools that a model can call, each by a name of its own: that of its namespace first if need be."""
    found: dict[str, Offered] = {}
    for tool, namespace in _flat(tools):
        name = tool.name if tool.name not in found or not namespace else f"{namespace}.{tool.name}"[-128:]
        found[name] = Offered(name, tool, namespace)
    return list(found.values())


def _flat(
    tools: Iterable[FunctionTool | CustomTool | Namespace | Other],
) -> Iterator[tuple[FunctionTool | CustomTool, str | None]]:
    for tool in tools:
        if isinstance(tool, Namespace):
            yield from ((one, tool.name) for one in tool.tools if not isinstance(one, Other))
        elif isinstance(tool, FunctionTool | CustomTool):
            yield tool, None


def input_of(arguments: str) -> str:
    """Return the text that the arguments of a free-text tool's call have; all of them where they have none."""
    try:
        return str(json.loads(arguments)["input"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return arguments
