"""Calls that stand one after the other."""

import string
from collections.abc import Collection

from gateway.parsing.calls.tool_call import PartialCall, ToolCallDelta

_BEHIND = string.whitespace + "],;}"  # what stands behind calls: arrays, lines, a bracket too many
_GAP = _BEHIND + "["


class CallRun:
    """Reads one call, several, or an array of them, up to what is neither a call nor between two.

    Templates show the form of a call in two brackets, and some models copy that.
    """

    def __init__(self, first: int, names: Collection[str] = ()) -> None:
        """Begin with the call at this index. If functions are named, there is no tag, and calls are of these alone."""
        self.num_calls = 0
        self.stopped = False
        """Whether it came to something else, or to the end without a call."""
        self.rest = ""
        """That, as far as it has come."""
        self._first, self._names = first, names
        self._call: PartialCall | None = None
        self._bracket = ""  # held until it is known whether another one follows
        self._before: list[str] = []  # what is read again if no call follows

    @property
    def text(self) -> str:
        """What stands before `rest`, if there was no call."""
        return "" if self.num_calls else "".join(self._before)

    def push(self, text: str, *, last: bool) -> list[ToolCallDelta]:
        """Return what the text adds to the calls; `last` says that it ends."""
        found = list[ToolCallDelta]()
        while not self.stopped and (self._call or (text := self._next(text))):
            self._call = self._call or PartialCall(self._first + self.num_calls, self._names)
            found += self._call.push(text)
            if not self._call.ended:
                break
            text = self._call.rest
            found += self._finish(self._call, text)
        if last and self._call:
            found += self._finish(self._call)
        self._before += [self._bracket] if last and self._bracket else []
        if last and not self.stopped and (self._before or not self.num_calls):
            self._stop("")
        return found

    def _finish(self, call: PartialCall, rest: str = "") -> list[ToolCallDelta]:
        self._call = None
        parts = call.finish(tagged=not self._names)
        if parts is None:
            self._before.append(call.text)
            self._stop(rest)
            return []
        self.num_calls += 1
        self._before = []
        return parts

    def _next(self, text: str) -> str:
        """Return the text from where the next call begins; nothing if none does in it."""
        text, self._bracket = self._bracket + text, ""
        start = len(text) - len(text.lstrip(_GAP))
        start += text.startswith("{{", start)
        before = text[:start] if self._before or not self.num_calls else text[:start].lstrip(_BEHIND)
        self._before += [before] if before else []
        text = text[start:]
        if text == "{":
            self._bracket = text
            return ""
        if text and text[0] != "{":
            self._stop(text)
            return ""
        return text

    def _stop(self, rest: str) -> None:
        self.stopped, self.rest = True, "".join(self._before) + rest if self.num_calls else rest
