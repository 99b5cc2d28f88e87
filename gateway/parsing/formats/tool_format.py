"""How models write the calls of tools."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.parsing.calls.call_schema import JSON_OPTIONS, call_schema
from gateway.parsing.formats.tool_parser import ToolParser
from gateway.requests.tool_fields import Function

Json = dict[str, Any]
ANY_OBJECT: Json = {"type": "object", "x-guidance": JSON_OPTIONS}
Tags = Mapping[str, int]
"""The texts that are single tokens, and these."""
_NAMED = re.compile(r"<[^<>\s]+>")  # a token that Lark, as llguidance has it, takes by its name


class ToolFormat(ABC):
    """How a family of models writes a call: what it is read by, and the grammar of one that has to be made."""

    opening = ""
    """The tag before a call; empty if there is none."""
    tokens: Sequence[str] = ()
    """Tags that are special tokens in these models' vocabularies, which otherwise have no text."""
    optional = "text (calls /\\s*/)?"
    """In Lark, an answer with or without calls."""
    bare = False
    """Whether calls without tags are looked for."""
    arguments = "arguments"
    """What a call without tags names its arguments."""

    @abstractmethod
    def parser(self, functions: Sequence[Function] = ()) -> ToolParser:
        """Return what reads a reply that may call these functions."""

    @abstractmethod
    def calls(self, functions: Sequence[tuple[Function, Json]], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `calls`: one call of these functions by these schemas, or several."""

    def rules(self, functions: Sequence[Function], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `answer`: one call of these functions, or several."""
        return f"answer: calls\n{self.calls([(one, call_schema(one)) for one in functions], tags, parallel=parallel)}"

    def optional_rules(self, functions: Sequence[Function], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `answer`: any text, and calls, those that are held to their schemas by these."""
        calls = self.calls_by_schema(functions, tags, parallel=parallel)
        return f"answer: {self.optional}\ntext: /(?s:.*)/\n{calls}"

    def calls_by_schema(self, functions: Sequence[Function], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `calls`: those that are held to their schemas by these."""
        return self.calls([(one, self._arguments(one)) for one in functions], tags, parallel=parallel)

    def holds(self, function: Function) -> bool:
        """Return whether a call of this function is held to its schema where it need not be made."""
        return function.strict

    def _arguments(self, function: Function) -> Json:
        return call_schema(function) if self.holds(function) else ANY_OBJECT

    def bare_call(self, functions: Sequence[Function]) -> str:
        """Return, in Lark, a call without tags of one of these functions."""
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": one.name}, self.arguments: self._arguments(one)},
                "required": ["name", self.arguments],
                "additionalProperties": False,
            }
            for one in functions
        ]
        return f"%json {json.dumps({'anyOf': calls, 'x-guidance': JSON_OPTIONS})}"


def tag(text: str, tags: Tags) -> str:
    """Return a tag in Lark: by name or number if it is a single token, otherwise as text."""
    if text not in tags:
        return json.dumps(text, ensure_ascii=False) if text else ""
    return text if _NAMED.fullmatch(text) else f"<[{tags[text]}]>"


def tagged(text: str, tags: Tags, marks: Sequence[str]) -> str:
    """Return, in Lark, a text in which these marks may be single tokens."""
    parts = re.split(f"({'|'.join(map(re.escape, marks))})", text)
    return " ".join(tag(part, tags) for part in parts if part)
