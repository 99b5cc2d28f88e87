"""The grammar of calls whose arguments stand between tags."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from gateway.parsing.calls.argument_text import types_of
from gateway.parsing.calls.call_schema import is_unread
from gateway.parsing.formats.tool_format import Json, Tags, ToolFormat
from gateway.parsing.grammar_part import as_part
from gateway.requests.tool_fields import Function
from shared.sampling_params import Grammar

_ANY_KEY = r"/[^<>\n]{1,64}/"


class XmlFormat(ToolFormat):
    """Holds arguments to the schemas of their parameters: JSON as such, strings to their choices if they have any.

    Strings are held to no pattern and to no length, since they are plain text, but the input of a free-text tool is
    held to its grammar. Arguments come in the schema's order.
    """

    line_end = ""
    """In Lark, what stands behind an argument."""

    @abstractmethod
    def begin(self, name: str, tags: Tags) -> str:
        """Return, in Lark, what stands before the arguments."""

    @abstractmethod
    def end(self, tags: Tags) -> str:
        """Return, in Lark, what stands behind them."""

    @abstractmethod
    def key(self, key: str, tags: Tags) -> str:
        """Return, in Lark, what stands before an argument; its key is in Lark."""

    @abstractmethod
    def value_end(self, tags: Tags) -> str:
        """Return, in Lark, what ends an argument: one token or one text."""

    def calls(self, functions: Sequence[tuple[Function, Json]], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `calls`."""
        calls, rules = list[str](), list[str]()
        for number, (function, schema) in enumerate(functions):
            named, required = schema.get("properties"), schema.get("required")
            if isinstance(named, dict) and named:
                optional = [not (isinstance(required, list) and key in required) for key in named]
                arguments = [f"f{number}_{index}{'?' * one}" for index, one in enumerate(optional)]
                for index, (key, value) in enumerate(named.items()):
                    rule, grammar = f"f{number}_{index}", _input_grammar(function)
                    if not grammar:
                        written = self._value(value, schema, tags)
                    elif grammar.kind == "regex":
                        written = f"{rule}v"
                        rules.append(f"{_ended(written, as_part(grammar), self.value_end(tags))}\n")
                    else:
                        written = f"{as_part(grammar)} {self.value_end(tags)}"
                    rules.append(f"{rule}: {self.key(_quoted(key), tags)} {written} {self.line_end}\n")
            else:
                arguments = ["any*"] if schema.get("additionalProperties") is not False else []
            calls.append(" ".join([self.begin(function.name, tags), *arguments, self.end(tags)]))
        more = r" (/\s{0,2}/ call)* /\s{0,2}/" if parallel else ""  # the model may have no more calls to make
        plain = _ended("plain", "/(?s:.*)/", self.value_end(tags))
        any_one = f"any: {self.key(_ANY_KEY, tags)} plain {self.line_end}"
        return f"calls: call{more}\ncall: {' | '.join(calls)}\n{plain}\n{any_one}\n{''.join(rules)}"

    @override
    def holds(self, function: Function) -> bool:
        return function.strict or _input_grammar(function) is not None

    def _value(self, schema: Any, root: Json, tags: Tags) -> str:
        """Return, in Lark, the values of a schema: strings as plain text, others as JSON; and what ends them."""
        if choices := _choices(schema):
            return f"({' | '.join(map(_quoted, choices))}) {self.value_end(tags)}"
        types = types_of(schema, root)
        if not types or "string" in types:
            return "plain"
        definitions = {key: root[key] for key in ("$defs", "definitions", "x-guidance") if key in root}
        return f"%json {json.dumps(definitions | schema)} {self.value_end(tags)}"


def _input_grammar(function: Function) -> Grammar | None:
    """Return what the input of a free-text tool is held to; a pattern that no grammar can hold is a hint."""
    grammar = function.input_grammar
    return None if grammar and grammar.kind == "regex" and is_unread(grammar.text) else grammar


def _ended(rule: str, pattern: str | None, end: str) -> str:
    """Return a rule in Lark: a pattern up to the first place where its end stands, whatever it matches."""
    return f"{rule}[suffix={end}]: {pattern}" if end.startswith('"') else f"{rule}: {pattern} {end}"


def _choices(schema: Any) -> list[str]:
    """Return the strings that are the only ones allowed, if they are listed."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else []) if isinstance(schema, dict) else []
    strings = isinstance(values, list) and all(isinstance(value, str) and value for value in values)
    return values if strings else []


def _quoted(text: str) -> str:
    """Return a text in Lark."""
    return json.dumps(text, ensure_ascii=False)
