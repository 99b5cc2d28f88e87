"""Find tool calls in the text of a reply, as it comes."""

import re
from typing import Protocol

from gateway.parsing.tool_call import PartialCall, ToolCallDelta
from gateway.text.stop_strings import StopStrings

ContentAndCalls = tuple[str, list[ToolCallDelta]]  # content, and parts of calls
_NEXT = re.compile(r"\s*\}\s*[;,]?\s*(?=\{)")


class ToolParser(Protocol):
    """Takes a text piece by piece; `last` says that it ends."""

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        ...


class HermesParser:
    """Reads calls between `<tool_call>` and `</tool_call>`. Text that may begin a tag is held until that is decided."""

    OPEN, CLOSE = "<tool_call>", "</tool_call>"

    def __init__(self) -> None:
        """Begin a reply."""
        self._tags = StopStrings([self.OPEN])
        self._call: PartialCall | None = None
        self._num_calls = 0
        self._space = ""  # dropped before a call and after one

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        content, calls = "", list[ToolCallDelta]()
        while True:
            piece = self._tags.push(text)
            if last and not self._tags.found:
                piece += self._tags.flush()
            if self._call:
                calls += self._call.push(piece)
            else:
                content += self._without_space(piece)
            if not self._tags.found:
                break
            text = self._tags.flush()
            if self._call:
                content += self._finish(self._call, calls, self.CLOSE)
            else:
                self._space, self._call = "", PartialCall(self._num_calls)
            self._tags = StopStrings([self.CLOSE if self._call else self.OPEN])
        if last and self._call:
            content += self._finish(self._call, calls)
        elif last and not self._num_calls:
            content += self._space
        return content, calls

    def _without_space(self, text: str) -> str:
        text = self._space + text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        return kept

    def _finish(self, call: PartialCall, calls: list[ToolCallDelta], close: str = "") -> str:
        """Add the rest of a call to `calls`; return it as content if it was no call."""
        self._call = None
        rest = call.finish()
        if rest is None:
            return self.OPEN + call.text + close
        calls += rest
        self._num_calls += 1
        return ""


class LlamaParser:
    """Reads replies that are nothing but calls, one after the other: such a reply begins with a brace."""

    def __init__(self) -> None:
        """Begin a reply."""
        self._text = ""  # held while nothing but space has come
        self._call: PartialCall | None = None
        self._num_calls = 0
        self._is_content = False

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        if self._is_content:
            return text, []
        if not self._call:
            self._text += text
            if not self._text.strip():
                return (self._text if last else ""), []
            text = self._text
            if not text.lstrip().startswith("{"):
                self._is_content = True
                return text, []
            self._call = PartialCall(0)
        calls = self._call.push(text)
        while self._call.end is not None and (gap := _NEXT.match(self._call.text, self._call.end)):
            text, self._num_calls = self._call.text[gap.end() :], self._num_calls + 1
            self._call = PartialCall(self._num_calls)
            calls += self._call.push(text)
        if last:
            rest = self._call.finish()
            if rest is None:
                return self._call.text, calls
            calls += rest
        return "", calls
