"""Find tool calls in the text of a reply, as it comes."""

import re
from collections.abc import Sequence
from typing import Protocol

from gateway.parsing.tool_call import PartialCall, ToolCallDelta
from gateway.text.stop_strings import StopStrings

ContentAndCalls = list[str | ToolCallDelta]  # content and parts of calls, in the order of the text
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
        found: ContentAndCalls = []
        while True:
            piece = self._tags.push(text)
            if last and not self._tags.found:
                piece += self._tags.flush()
            found += self._call.push(piece) if self._call else [self._without_space(piece)]
            if not self._tags.found:
                break
            text = self._tags.flush()
            if self._call:
                found += self._finish(self._call, self.CLOSE)
            else:
                self._space, self._call = "", PartialCall(self._num_calls)
            self._tags = StopStrings([self.CLOSE if self._call else self.OPEN])
        if last and self._call:
            found += self._finish(self._call)
        elif last and not self._num_calls:
            found.append(self._space)
        return found

    def _without_space(self, text: str) -> str:
        text = self._space + text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        return kept

    def _finish(self, call: PartialCall, close: str = "") -> Sequence[str | ToolCallDelta]:
        """Return the rest of a call, or all of it as content if it was no call."""
        self._call = None
        rest = call.finish()
        if rest is None:
            return [self.OPEN + call.text + close]
        self._num_calls += 1
        return rest


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
            return [text]
        if not self._call:
            self._text += text
            if not self._text.strip():
                return [self._text] if last else []
            text = self._text
            if not text.lstrip().startswith("{"):
                self._is_content = True
                return [text]
            self._call = PartialCall(0)
        found: ContentAndCalls = [*self._call.push(text)]
        while self._call.end is not None and (gap := _NEXT.match(self._call.text, self._call.end)):
            text, self._num_calls = self._call.text[gap.end() :], self._num_calls + 1
            self._call = PartialCall(self._num_calls)
            found += self._call.push(text)
        if last:
            rest = self._call.finish()
            found += [self._call.text] if rest is None else rest
        return found
