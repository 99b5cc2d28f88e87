"""Calls as Mistral's models write them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from gateway.parsing.calls.either_call import EitherCall
from gateway.parsing.calls.headed_call import HeadedCall
from gateway.parsing.formats.tagged_parser import TaggedParser
from gateway.parsing.formats.tool_format import Json, Tags, ToolFormat, tag
from gateway.parsing.formats.tool_parser import ToolParser
from gateway.requests.tool_fields import Function

CALLS, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_HEAD = regex.compile(
    r"\s{0,16}(?P<name>[\w.\-]{1,128})\s{0,16}(?:\[CALL_ID\][\w\-]{0,64}\s{0,16})?(?:\[ARGS\]\s{0,16})?(?=\{)"
)


@dataclass(frozen=True)
class Mistral(ToolFormat):
    """`[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, or `[TOOL_CALLS]name[ARGS]{…}` since the 11th tokenizer.

    Both are read; the template says which one a call that has to be made has.
    """

    opening: str = CALLS
    named: bool = False
    """Whether the name stands before the arguments."""
    tokens: Sequence[str] = (CALLS, ARGUMENTS, CALL_ID)

    def parser(self, functions: Sequence[Function] = ()) -> ToolParser:  # noqa: ARG002  # it reads calls of any
        """Return what reads a reply."""
        return TaggedParser([CALLS], lambda first, _: EitherCall(first, lambda: HeadedCall(first, _HEAD)))

    def calls(self, functions: Sequence[tuple[Function, Json]], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `calls`."""
        opening = tag(CALLS, tags)
        if self.named:
            calls = " | ".join(
                f"{json.dumps(function.name)} {tag(ARGUMENTS, tags)} %json {json.dumps(schema)}"
                for function, schema in functions
            )
            return f"calls: call{'+' if parallel else ''}\ncall: {opening} ({calls})\n"
        heads = [f'{{"name": {json.dumps(function.name)}, "arguments": ' for function, _ in functions]
        schemas = [json.dumps(schema) for _, schema in functions]
        calls = " | ".join(f"{json.dumps(head)} %json {schema}" for head, schema in zip(heads, schemas, strict=True))
        more = ' ("," " "? call)*' if parallel else ""
        return f'calls: {opening} " "? "[" call{more} "]"\ncall: ({calls}) "}}"\n'


MISTRAL, MISTRAL_NAMED = Mistral(), Mistral(named=True)
