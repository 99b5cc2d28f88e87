"""Calls that are an object of JSON with the name and the arguments."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.parsing.formats.tool_format import Json, Tags, ToolFormat, tag
from gateway.requests.tool_fields import Function


@dataclass(frozen=True)
class JsonFormat(ToolFormat):
    """What stands around a call and between two, and the name of its arguments."""

    opening: str = ""
    closing: str = ""
    space: str = ""
    arguments: str = "arguments"
    between: str = ""

    def calls(self, functions: Sequence[tuple[Function, Json]], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `calls`."""
        calls = [
            f"{self._head(function)} %json {json.dumps(schema)} "
            f"{json.dumps('}' + self.space)} {tag(self.closing, tags)}"
            for function, schema in functions
        ]
        between = json.dumps(self.between)  # a reply may also end on it: the model may have no more calls to make
        more = f" ({between} call)* {between}?" if parallel else ""
        return f"calls: call{more}\ncall: {tag(self.opening, tags)} ({' | '.join(calls)})\n"

    def _head(self, function: Function) -> str:
        return json.dumps(f'{self.space}{{"name": {json.dumps(function.name)}, "{self.arguments}": ')
