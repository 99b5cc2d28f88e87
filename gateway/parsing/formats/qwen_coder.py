"""Calls as Qwen3-Coder and its kin write them."""

import json
from collections.abc import Sequence

import regex

from gateway.parsing.calls.call_reader import CallReader
from gateway.parsing.calls.either_call import EitherCall
from gateway.parsing.calls.xml_call import XmlCall, XmlTags
from gateway.parsing.formats.tagged_parser import TaggedParser
from gateway.parsing.formats.tool_format import Tags, tag
from gateway.parsing.formats.tool_parser import ToolParser
from gateway.parsing.formats.xml_format import XmlFormat
from gateway.requests.tool_fields import Function

OPEN, CLOSE, FUNCTION = "<tool_call>", "</tool_call>", "<function="
_NAME = r"(?P<name>[^\s<>]{1,128})\s{0,4}>"
_NEXT = rf"\s{{0,64}}(?:<parameter=(?P<key>[^<>\n]{{1,256}})>(?:\n|(?=[^\n]))|</function>|(?={CLOSE}))"
_FOLLOWS = rf"\s{{0,64}}(?:<parameter=|</function>|{CLOSE}"
_VALUE_END = (
    rf"\n?(?:</parameter>(?={_FOLLOWS}%s))|(?=</function>\s{{0,16}}(?:{CLOSE}%s)))"
    r"|\n(?=<parameter=(?P<key>[^<>\n]{1,256})>)"
)
_NEXT_PATTERN, _END, _LAST_END = map(regex.compile, (_NEXT, _VALUE_END % ("", ""), _VALUE_END % (r"|\Z", r"|\Z")))
_TAGS = XmlTags(regex.compile(rf"\s{{0,16}}{FUNCTION}{_NAME}"), _NEXT_PATTERN, _END, _LAST_END)
_UNTAGGED = XmlTags(regex.compile(_NAME), _NEXT_PATTERN, _END, _LAST_END)


class QwenCoder(XmlFormat):
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, in lines.

    Without the first tag, which the model is known to leave out, it is a call of an offered function.
    """

    opening = OPEN

    def parser(self, functions: Sequence[Function] = ()) -> ToolParser:
        """Return what reads a reply that may call these functions."""

        def reader(first: int, opening: str) -> CallReader:
            if opening == FUNCTION:
                return XmlCall(first, _UNTAGGED, functions, known=True)
            return EitherCall(first, lambda: XmlCall(first, _TAGS, functions))

        return TaggedParser([OPEN, FUNCTION], reader, [CLOSE])

    def begin(self, name: str, tags: Tags) -> str:
        """Return, in Lark, what stands before the arguments."""
        return f"{tag(OPEN, tags)} {json.dumps(f'{chr(10)}{FUNCTION}{name}>{chr(10)}')}"

    def end(self, tags: Tags) -> str:
        """Return, in Lark, what stands behind them."""
        return f'"</function>\\n" {tag(CLOSE, tags)}'

    def key(self, key: str, tags: Tags) -> str:  # noqa: ARG002  # all of it is spelled
        """Return, in Lark, what stands before an argument."""
        return f'"<parameter=" {key} ">\\n"'

    def value_end(self, tags: Tags) -> str:  # noqa: ARG002  # likewise
        """Return, in Lark, what ends an argument."""
        return r'"\n</parameter>\n"'


QWEN_CODER = QwenCoder()
