"""Reads a reply's text as content, reasoning and calls."""

from dataclasses import dataclass, field
from typing import Literal

from gateway.parsing.bare_call import BareCallParser
from gateway.parsing.reasoning_parser import ReasoningParser
from gateway.parsing.reply_format import ReplyFormat
from gateway.parsing.tool_call import ToolCallDelta

ReplyFinish = Literal["stop", "length", "tool_calls"]


@dataclass
class ReplyParts:
    """What a piece of text added to a reply."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = field(default_factory=list)


class ReplyParser:
    """Splits the text of one reply into its parts, as it comes."""

    def __init__(self, form: ReplyFormat) -> None:
        """Begin a reply of this form."""
        self._form = form
        self._reasoning = ReasoningParser(thinking=form.thinking) if form.reasoning else None
        self._tools = form.tools.parser() if form.tools else None
        if self._tools and form.bare:
            self._tools = BareCallParser(form.bare, self._tools)
        self._called = False

    @property
    def reasoning_tokens(self) -> int:
        """How many of the texts, one per token, were reasoning, tags included."""
        return self._reasoning.num_pieces if self._reasoning else 0

    def push(self, *texts: str, last: bool) -> ReplyParts:
        """Return what these texts add; `last` says that the reply ends with them."""
        parts = ReplyParts("".join(texts))
        if self._reasoning and texts:
            pieces = [
                self._reasoning.push(text, last=last and number == len(texts)) for number, text in enumerate(texts, 1)
            ]
            parts.reasoning, parts.content = ("".join(column) for column in zip(*pieces, strict=True))
        if self._tools:
            parts.content, calls = self._tools.push(parts.content, last=last)
            parts.tool_calls = [call for call in calls if self._form.parallel or call.index == 0]
            self._called |= bool(calls)
        return parts

    def finish_reason(self, reason: ReplyFinish | None) -> ReplyFinish | None:
        """Return why the reply ended: `tool_calls` if it stopped after a call."""
        return "tool_calls" if reason == "stop" and self._called else reason
