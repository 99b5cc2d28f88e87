"""Find tool calls in the text of a reply, as it comes."""

from collections.abc import Sequence
from typing import Protocol

from gateway.parsing.tool_call import PartialCall, ToolCallDelta
from gateway.text.held_space import HeldSpace
from gateway.text.stop_strings import StopStrings

ContentAndCalls = list[str | ToolCallDelta]  # content and parts of calls, in the order of the text
_BETWEEN = {"}{", "};{", "},{"}  # what stands between the arguments of a call and the next call, without space


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
        self._space = HeldSpace()  # dropped before a call and after one

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        found: ContentAndCalls = []
        while True:
            piece = self._tags.push(text)
            if last and not self._tags.found:
                piece += self._tags.flush()
            found += self._call.push(piece) if self._call else [self._space.push(piece)]
            if not self._tags.found:
                break
            text = self._tags.flush()
            if self._call:
                found += self._finish(self._call, self.CLOSE)
            else:
                self._space.flush()
                self._call = PartialCall(self._num_calls)
            self._tags = StopStrings([self.CLOSE if self._call else self.OPEN])
        if last and self._call:
            found += self._finish(self._call)
        elif last and not self._num_calls:
            found.append(self._space.flush())
        return found

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
        self._space: list[str] = []  # held while nothing else has come
        self._call: PartialCall | None = None
        self._num_calls = 0
        self._between = ""
        self._is_content = False

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        if self._is_content:
            return [text]
        if not self._call and not self._num_calls:
            if not text.strip():
                self._space.append(text)
                return ["".join(self._space)] if last else []
            text = "".join([*self._space, text])
            if not text.lstrip().startswith("{"):
                self._is_content = True
                return [text]
            self._call = PartialCall(0)
        found: ContentAndCalls = []
        while text:
            if not self._call and not (text := self._next(text)):
                break
            self._call = self._call or PartialCall(self._num_calls)
            found += self._call.push(text)
            text = self._call.rest
            if self._call.ended:
                self._call, self._between = None, ""
                self._num_calls += 1
        if last and self._call:
            rest = self._call.finish()
            found += [self._call.text] if rest is None else rest
        return found

    def _next(self, text: str) -> str:
        """Return the text from where the next call begins in it; nothing if none does."""
        end = text.find("{") + 1
        dense = "".join(text[: end or len(text)].split())
        self._between = (self._between + dense)[:4]
        return text[end - 1 :] if self._between in _BETWEEN else ""
