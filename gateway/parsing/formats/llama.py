"""Calls as Llama 3.1 to 3.3 write them."""

from collections.abc import Sequence

from gateway.parsing.calls.call_run import CallRun
from gateway.parsing.calls.tool_call import PartialCall
from gateway.parsing.formats.json_format import JsonFormat
from gateway.parsing.formats.tagged_parser import TaggedParser
from gateway.parsing.formats.tool_parser import ContentAndCalls, ToolParser
from gateway.requests.tool_fields import Function

PYTHON_TAG = "<|python_tag|>"
_SEPARATORS, _BETWEEN = ";, \n\r\t", {"", ";", ","}  # what may stand between two calls, and what does, without space


class Llama(JsonFormat):
    """`{"name": …, "parameters": {…}}` and nothing else, or behind `<|python_tag|>`."""

    tokens = (PYTHON_TAG,)
    optional = r"calls | /(\s*[^\s{](?s:.*))?/"

    def parser(self, functions: Sequence[Function] = ()) -> ToolParser:  # noqa: ARG002  # it reads calls of any
        """Return what reads a reply."""
        return LlamaParser()


LLAMA = Llama(arguments="parameters", between="; ")


class LlamaParser:
    """Reads replies that are nothing but calls, one after the other, and begin with a brace; in others, tagged ones."""

    def __init__(self) -> None:
        """Begin a reply."""
        self._space: list[str] = []  # held while nothing else has come
        self._call: PartialCall | None = None
        self._num_calls = 0
        self._between: list[str] = []  # what has come since the last call
        self._is_content = False
        self._tagged = TaggedParser([PYTHON_TAG], lambda first, _: CallRun(self._num_calls + first))

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        if self._is_content:
            return self._tagged.push(text, last=last)
        if not self._call and not self._num_calls:
            if not text.strip():
                self._space.append(text)
                return ["".join(self._space)] if last else []
            text = "".join([*self._space, text])
            if not text.lstrip().startswith("{"):
                self._is_content = True
                return self._tagged.push(text, last=last)
            self._call = PartialCall(0)
        found: ContentAndCalls = []
        while text and not self._is_content:
            if not self._call and not (text := self._next(text)):
                break
            if self._is_content:
                return [*found, *self._tagged.push(text, last=last)]
            self._call = self._call or PartialCall(self._num_calls)
            found += self._call.push(text)
            text = self._call.rest
            if self._call.ended:
                found += self._finish(self._call)
        if last and self._call:
            found += self._finish(self._call)
        return [*found, *self._tagged.push(text, last=last)] if self._is_content else found

    def _finish(self, call: PartialCall) -> ContentAndCalls:
        """Return the rest of a call, or all of it as content if it was no call."""
        self._call = None
        parts = call.finish(tagged=False)
        if parts is None:
            self._is_content = True
            return [call.text]
        self._num_calls += 1
        self._between = []
        return [*parts]

    def _next(self, text: str) -> str:
        """Return the text from where the next call begins in it, or content; nothing if neither does."""
        rest = text.lstrip(_SEPARATORS)
        self._between.append(text[: len(text) - len(rest)])
        if not rest:
            return ""
        between = "".join(self._between)
        self._is_content = rest[0] != "{" or between.strip() not in _BETWEEN
        return between + rest if self._is_content else rest
