"""Calls as Qwen 2.5 and 3, Hermes and their kin write them."""

from collections.abc import Sequence

from gateway.parsing.calls.call_run import CallRun
from gateway.parsing.formats.json_format import JsonFormat
from gateway.parsing.formats.tagged_parser import TaggedParser
from gateway.parsing.formats.tool_parser import ToolParser
from gateway.requests.tool_fields import Function

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class Hermes(JsonFormat):
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

    JSON says where a call ends: a tag in a string of its arguments is text.
    """

    bare = True

    def parser(self, functions: Sequence[Function] = ()) -> ToolParser:  # noqa: ARG002  # it reads calls of any
        """Return what reads a reply."""
        return TaggedParser([OPEN], lambda first, _: CallRun(first), [CLOSE])


HERMES = Hermes(OPEN, CLOSE, "\n", "arguments", "\n")
