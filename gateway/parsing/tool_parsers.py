"""Find tool calls in the text of a reply, as it comes."""

from typing import Protocol

from gateway.parsing.call_run import CallRun
from gateway.parsing.tool_call import PartialCall, ToolCallDelta
from gateway.text.held_space import HeldSpace
from gateway.text.stop_strings import StopStrings

ContentAndCalls = list[str | ToolCallDelta]  # content and parts of calls, in the order of the text
_BETWEEN = {"{", ";{", ",{"}  # what stands between two calls, without space, and begins the next


class ToolParser(Protocol):
    """Takes a text piece by piece; `last` says that it ends."""

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        ...


class HermesParser:
    """Reads the calls between `<tool_call>` and `</tool_call>`. Text that may begin a tag is held until it is decided.

    JSON says where a call ends: a tag in a string of its arguments is text.
    """

    OPEN, CLOSE = "<tool_call>", "</tool_call>"

    def __init__(self) -> None:
        """Begin a reply."""
        self._tags = StopStrings([self.OPEN])
        self._run: CallRun | None = None
        self._skips = False  # what stands behind calls, up to the next tag
        self._num_calls = 0
        self._space = HeldSpace()  # dropped before a call and after one

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        found: ContentAndCalls = []
        while True:
            if self._run:
                found += self._run.push(text, last=last)
                if not self._run.stopped:
                    break
                text = self._leave(self._run, found)
            piece = self._tags.push(text)
            if last and not self._tags.found:
                piece += self._tags.flush()
            if not self._skips:
                found.append(self._space.push(piece))
            if not self._tags.found:
                break
            text = self._tags.flush()
            if not self._skips or piece.endswith(self.OPEN):
                self._run = CallRun(self._num_calls)
            self._skips = False
            self._tags = StopStrings([self.OPEN])
        if last and not self._num_calls and not self._run:
            found.append(self._space.flush())
        return found

    def _leave(self, run: CallRun, found: ContentAndCalls) -> str:
        """Go on behind a run: without a call, it is content. Return what is to be read."""
        self._run = None
        if run.num_calls:
            self._num_calls += run.num_calls
            self._space = HeldSpace()
            self._skips, self._tags = True, StopStrings([self.CLOSE, self.OPEN], include=True)
        else:
            found.append(self._space.push(self.OPEN + run.text))
        return run.rest


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
                found += self._finish(self._call, text)
                text = "" if self._is_content else text
        if last and self._call:
            found += self._finish(self._call)
        return found

    def _finish(self, call: PartialCall, rest: str = "") -> ContentAndCalls:
        """Return the rest of a call, or all of it as content if it was no call."""
        self._call, self._between = None, ""
        parts = call.finish(tagged=False)
        if parts is None:
            self._is_content = True
            return [call.text + rest]
        self._num_calls += 1
        return [*parts]

    def _next(self, text: str) -> str:
        """Return the text from where the next call begins in it; nothing if none does."""
        end = text.find("{") + 1
        dense = "".join(text[: end or len(text)].split())
        self._between = (self._between + dense)[:4]
        return text[end - 1 :] if self._between in _BETWEEN else ""
