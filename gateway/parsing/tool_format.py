"""How a model's chat template makes it call tools."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.parsing.call_schema import JSON_OPTIONS, call_schema
from gateway.parsing.tool_parsers import HermesParser, LlamaParser, ToolParser
from gateway.requests.tool_fields import Function

ANY_OBJECT: dict[str, Any] = {"type": "object", "x-guidance": JSON_OPTIONS}


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes a call: what stands around it, and the name of its arguments."""

    parser: Callable[[], ToolParser]
    opening: str
    closing: str
    space: str
    arguments: str
    between: str
    optional: str
    """In Lark, an answer with or without calls."""

    def rules(self, functions: Sequence[Function], tags: Collection[str], *, parallel: bool) -> str:
        """Return, in Lark, the rule `answer`: one call of these functions, or several. `tags` are single tokens."""
        return f"answer: calls\n{self._calls([(one, call_schema(one)) for one in functions], tags, parallel=parallel)}"

    def optional_rules(self, functions: Sequence[Function], tags: Collection[str], *, parallel: bool) -> str:
        """Return, in Lark, the rule `answer`: any text, and calls, those of strict functions by their schemas."""
        calls = self.calls_by_schema(functions, tags, parallel=parallel)
        return f"answer: {self.optional}\ntext: /(?s:.*)/\n{calls}"

    def calls_by_schema(self, functions: Sequence[Function], tags: Collection[str], *, parallel: bool) -> str:
        """Return, in Lark, the rule `calls`: those of strict functions by their schemas."""
        schemas = [(one, _arguments(one)) for one in functions]
        return self._calls(schemas, tags, parallel=parallel)

    def bare_call(self, functions: Sequence[Function]) -> str:
        """Return, in Lark, a call without tags of one of these functions."""
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": one.name}, self.arguments: _arguments(one)},
                "required": ["name", self.arguments],
                "additionalProperties": False,
            }
            for one in functions
        ]
        return f"%json {json.dumps({'anyOf': calls, 'x-guidance': JSON_OPTIONS})}"

    def _calls(
        self, functions: Sequence[tuple[Function, dict[str, Any]]], tags: Collection[str], *, parallel: bool
    ) -> str:
        calls = [
            f"{self._head(function)} %json {json.dumps(schema)} "
            f"{json.dumps('}' + self.space)} {_tag(self.closing, tags)}"
            for function, schema in functions
        ]
        between = json.dumps(self.between)  # a reply may also end on it: the model may have no more calls to make
        more = f" ({between} call)* {between}?" if parallel else ""
        return f"calls: call{more}\ncall: {_tag(self.opening, tags)} ({' | '.join(calls)})\n"

    def _head(self, function: Function) -> str:
        return json.dumps(f'{self.space}{{"name": {json.dumps(function.name)}, "{self.arguments}": ')


# Qwen 2.5 and 3, Hermes and their kin; Llama 3.1 to 3.3.
HERMES = ToolFormat(
    HermesParser, HermesParser.OPEN, HermesParser.CLOSE, "\n", "arguments", "\n", "text (calls /\\s*/)?"
)


LLAMA = ToolFormat(LlamaParser, "", "", "", "parameters", "; ", r"calls | /(\s*[^\s{](?s:.*))?/")


def tool_format(template: str) -> ToolFormat | None:
    """Return how a model with this chat template calls tools; None if it does not, or in an unknown way."""
    if "<tool_call>" in template and "<function=" not in template:
        return HERMES
    return LLAMA if "tools" in template and '"parameters"' in template else None


def _arguments(function: Function) -> dict[str, Any]:
    """Return what a call that need not be made is held to."""
    return call_schema(function) if function.strict else ANY_OBJECT


def _tag(text: str, tags: Collection[str]) -> str:
    """Return a tag in Lark: by name if it is a single token, otherwise as text."""
    return text if text in tags else json.dumps(text) if text else ""
