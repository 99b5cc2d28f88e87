"""Calls as GLM 4.5 and later ones write them."""

import json
from collections.abc import Sequence

import regex

from gateway.parsing.calls.xml_call import XmlCall, XmlTags
from gateway.parsing.formats.tagged_parser import TaggedParser
from gateway.parsing.formats.tool_format import Tags, tag
from gateway.parsing.formats.tool_parser import ToolParser
from gateway.parsing.formats.xml_format import XmlFormat
from gateway.requests.tool_fields import Function

OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
_ENDS = rf"{VALUE_END}(?=\s{{0,64}}(?:{KEY}|{CLOSE}%s))|(?P<key>(?!))"
_TAGS = XmlTags(
    regex.compile(rf"\s{{0,16}}(?P<name>[\w.\-]{{1,128}})\s{{0,64}}(?={KEY}|{CLOSE})"),
    regex.compile(rf"\s{{0,64}}(?:{KEY}(?P<key>[^<>]{{1,256}}){KEY_END}\s{{0,64}}{VALUE}|{CLOSE})"),
    regex.compile(_ENDS % ""),
    regex.compile(_ENDS % r"|\Z"),
)


class Glm(XmlFormat):
    """`<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`."""

    opening = OPEN
    line_end = r'"\n"?'
    tokens = (OPEN, CLOSE, KEY, KEY_END, VALUE, VALUE_END)

    def parser(self, functions: Sequence[Function] = ()) -> ToolParser:
        """Return what reads a reply that may call these functions."""
        return TaggedParser([OPEN], lambda first, _: XmlCall(first, _TAGS, functions))

    def begin(self, name: str, tags: Tags) -> str:
        """Return, in Lark, what stands before the arguments; later models write no line ends."""
        return f'{tag(OPEN, tags)} {json.dumps(name)} "\\n"?'

    def end(self, tags: Tags) -> str:
        """Return, in Lark, what stands behind them."""
        return tag(CLOSE, tags)

    def key(self, key: str, tags: Tags) -> str:
        """Return, in Lark, what stands before an argument."""
        return f'{tag(KEY, tags)} {key} {tag(KEY_END, tags)} "\\n"? {tag(VALUE, tags)}'

    def value_end(self, tags: Tags) -> str:
        """Return, in Lark, what ends an argument."""
        return tag(VALUE_END, tags)


GLM = Glm()
