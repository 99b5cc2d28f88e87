"""Reads a reply's text as content, reasoning and calls."""

from collections.abc import Iterator
from typing import Literal

from gateway.parsing.calls.tool_call import ToolCallDelta
from gateway.parsing.formats.bare_call import BareCallParser
from gateway.parsing.reasoning_parser import ReasoningParser
from gateway.parsing.reply_format import ReplyFormat
from gateway.parsing.reply_parts import ReplyPart, ReplyParts

ReplyFinish = Literal["stop", "length", "tool_calls"]


class ReplyParser:
    """Splits the text of one reply into its parts, as it comes.

    It reads token by token, so that what it finds does not depend on how many of them come at once.
    """

    def __init__(self, form: ReplyFormat) -> None:
        """Begin a reply of this form."""
        self._form = form
        self._reasoning = ReasoningParser(thinking=form.thinking) if form.reasoning else None
        self._tools = form.tools.parser(form.functions) if form.tools else None
        if self._tools and form.bare:
            self._tools = BareCallParser(form.bare, self._tools)
        self._called = False
        self._num_waiting = 0  # tokens since the last part

    @property
    def reasoning_tokens(self) -> int:
        """How many of the texts, one per token, were reasoning, tags included."""
        return self._reasoning.num_pieces if self._reasoning else 0

    def push(self, *texts: str, last: bool) -> ReplyParts:
        """Return what these texts, one per token, add; `last` says that the reply ends with them."""
        if not self._reasoning and not self._tools:
            self._num_waiting += len(texts)
            content = "".join(texts)
            return ReplyParts([self._part(content=content)] if content else [])
        parts = list[ReplyPart]()
        *before, end = texts or [""]
        for text in before:
            parts += self._read(text, last=False)
        return ReplyParts.of([*parts, *self._read(end, last=last)])

    def finish_reason(self, reason: ReplyFinish | None) -> ReplyFinish | None:
        """Return why the reply ended: `tool_calls` if it stopped after a call."""
        return "tool_calls" if reason == "stop" and self._called else reason

    def _read(self, text: str, *, last: bool) -> Iterator[ReplyPart]:
        """Yield what one token adds."""
        self._num_waiting += 1
        if self._reasoning:
            reasoning, text = self._reasoning.push(text, last=last)
            if reasoning and self._form.shows_reasoning:
                yield self._part(reasoning=reasoning)
        for found in self._tools.push(text, last=last) if self._tools else [text]:
            if isinstance(found, ToolCallDelta):
                self._called = True
                if self._form.parallel or found.index == 0:
                    yield self._part(call=found)
            elif found:
                yield self._part(content=found)

    def _part(self, content: str = "", reasoning: str = "", call: ToolCallDelta | None = None) -> ReplyPart:
        num_tokens, self._num_waiting = self._num_waiting, 0
        return ReplyPart(content, reasoning, call, num_tokens)
