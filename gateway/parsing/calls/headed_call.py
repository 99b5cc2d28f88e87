"""A call whose name stands before its arguments."""

from collections.abc import Sequence

import regex

from gateway.parsing.calls.call_reader import match, skip
from gateway.parsing.calls.lax_json import LaxJson
from gateway.parsing.calls.one_call import OneCall
from gateway.parsing.calls.tool_call import ToolCallDelta


class HeadedCall(OneCall):
    """Reads one call: a head with the name, arguments in JSON, and what stands behind them."""

    def __init__(self, index: int, head: regex.Pattern[str], tail: Sequence[regex.Pattern[str]] = ()) -> None:
        """Begin the call at this index. The head has a group `name` and ends before a brace.

        Each part of the tail may be missing.
        """
        super().__init__(index)
        self._head, self._tail = head, tail
        self._json = LaxJson()

    @property
    def text(self) -> str:
        """What stands before `rest`, if there was no call: nothing."""
        return ""

    def push(self, text: str, *, last: bool) -> list[ToolCallDelta]:
        """Return what the text adds to the call."""
        text, self._held = self._held + text, ""
        part = None
        if not self.num_calls:
            head, waits = match(self._head, text, last=last)
            if not head:
                self._wait_or_stop(text, waits=waits)
                return []
            self.num_calls = 1
            part, text = ToolCallDelta.first(self._index, head["name"]), text[head.end() :]
        written = ""
        if not self._json.ended:
            written = "".join(piece for piece, _ in self._json.push(text))
            written += self._json.finish() if last and not self._json.ended else ""
            text = self._json.rest
        if self._json.ended:
            text, waits = skip(self._tail, text, last=last)
            self._wait_or_stop(text, waits=waits)
        if part:
            return [ToolCallDelta(part.index, written, part.id, part.name)]
        return [ToolCallDelta(self._index, written)] if written else []
