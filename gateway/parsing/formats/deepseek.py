"""Calls as DeepSeek's V3, R1 and V3.1 write them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from gateway.parsing.calls.headed_call import HeadedCall
from gateway.parsing.formats.tagged_parser import TaggedParser
from gateway.parsing.formats.tool_format import Json, Tags, ToolFormat, tag, tagged
from gateway.parsing.formats.tool_parser import ToolParser
from gateway.requests.tool_fields import Function

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, CALL_END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_HEAD = regex.compile(
    rf"\s{{0,16}}(?:{CALL})?\s{{0,16}}(?:function{SEPARATOR})?\s{{0,16}}(?P<name>[\w.\-]{{1,128}})\s{{0,16}}"
    rf"(?:{SEPARATOR})?\s{{0,16}}(?:```(?:json)?\s{{0,16}})?(?=\{{)"
)
_TAIL = [regex.compile(rf"\s{{0,16}}{end}") for end in ("```", CALL_END, CALLS_END)]


@dataclass(frozen=True)
class DeepSeek(ToolFormat):
    """Calls between begin and end tokens: V3's and R1's in a block of Markdown, V3.1's without.

    Both are read; the template says which one a call that has to be made has.
    """

    opening: str = CALLS
    block: bool = True
    """Whether the arguments stand in a block of Markdown."""
    tokens: Sequence[str] = (CALLS, CALLS_END, CALL, CALL_END, SEPARATOR)

    def parser(self, functions: Sequence[Function] = ()) -> ToolParser:  # noqa: ARG002  # it reads calls of any
        """Return what reads a reply."""
        return TaggedParser([CALLS, CALL], lambda first, _: HeadedCall(first, _HEAD, _TAIL), [CALL_END, CALLS_END])

    def calls(self, functions: Sequence[tuple[Function, Json]], tags: Tags, *, parallel: bool) -> str:
        """Return, in Lark, the rule `calls`."""
        calls = []
        for function, schema in functions:
            head = f"function{SEPARATOR}{function.name}\n```json\n" if self.block else function.name + SEPARATOR
            end = f"{json.dumps(chr(10) + '```')} " if self.block else ""
            calls.append(f"{tagged(head, tags, [SEPARATOR])} %json {json.dumps(schema)} {end}{tag(CALL_END, tags)}")
        between = '"\\n" ' if self.block else ""
        more = f" ({between}call)*" if parallel else ""
        return (
            f"calls: {tag(CALLS, tags)} call{more} {tag(CALLS_END, tags)}\n"
            f"call: {tag(CALL, tags)} ({' | '.join(calls)})\n"
        )


DEEPSEEK, DEEPSEEK_V31 = DeepSeek(), DeepSeek(block=False)
