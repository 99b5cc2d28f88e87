"""What finds tool calls in the text of a reply."""

from typing import Protocol

from gateway.parsing.calls.tool_call import ToolCallDelta

ContentAndCalls = list[str | ToolCallDelta]
"""Content and parts of calls, in the order of the text."""


class ToolParser(Protocol):
    """Takes a text piece by piece; `last` says that it ends."""

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        ...
