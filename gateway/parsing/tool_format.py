"""How a model's chat template makes it call tools."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.parsing.tool_parsers import HermesParser, LlamaParser, ToolParser
from gateway.requests.tool_fields import Function
from shared.sampling_params import JSON_WHITESPACE

ANY_OBJECT: dict[str, Any] = {"type": "object"}


JSON_OPTIONS: dict[str, Any] = {"x-guidance": {"whitespace_pattern": JSON_WHITESPACE}}


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
        return f"answer: calls\n{self._calls([(one, one.parameters) for one in functions], tags, parallel=parallel)}"

    def optional_rules(self, functions: Sequence[Function], tags: Collection[str], *, parallel: bool) -> str:
        """Return, in Lark, the rule `answer`: any text, and calls, those of strict functions by their schemas."""
        schemas = [(one, one.parameters if one.strict else ANY_OBJECT) for one in functions]
        return f"answer: {self.optional}\ntext: /(?s:.*)/\n{self._calls(schemas, tags, parallel=parallel)}"

    def _calls(
        self, functions: Sequence[tuple[Function, dict[str, Any]]], tags: Collection[str], *, parallel: bool
    ) -> str:
        calls = [
            f"{self._head(function)} %json {json.dumps(JSON_OPTIONS | schema)} "
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


def _tag(text: str, tags: Collection[str]) -> str:
    """Return a tag in Lark: by name if it is a single token, otherwise as text."""
    return text if text in tags else json.dumps(text) if text else ""
