"""One tool call, as it comes."""

import json
import re
from dataclasses import dataclass, replace
from uuid import uuid4

_HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*'
    r'"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of the call at this index; the call's first part has the id and the name."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class PartialCall:
    """One call, written as `{"name": …, "arguments": {…}}`. Its arguments are passed on as written."""

    def __init__(self, index: int) -> None:
        """Begin a call."""
        self.text = ""
        """Everything that was pushed."""
        self.end: int | None = None
        """Where in the text the arguments end."""
        self._index = index
        self._sent: int | None = None  # where in the text the arguments passed on so far end

    def push(self, text: str) -> list[ToolCallDelta]:
        """Add text; return the parts that it adds to the call."""
        self.text += text
        parts = []
        if self._sent is None and (head := _HEAD.match(self.text)):
            self._start = self._sent = head.end()
            parts.append(self._first(json.loads(head[1])))
        if self._sent is None or self.end is not None:
            return []
        try:
            self.end = _DECODER.raw_decode(self.text, self._start)[1]
        except ValueError:  # there is more to come
            end = len(self.text)
        else:
            end = self.end
        arguments, self._sent = self.text[self._sent : end], end
        if parts:
            return [replace(parts[0], arguments=arguments)]
        return [ToolCallDelta(self._index, arguments)] if arguments else []

    def finish(self) -> list[ToolCallDelta] | None:
        """Return what is left to return: the whole call if its keys came in another order. None if it was no call."""
        if self._sent is not None:
            return []
        try:
            call = json.loads(self.text)
            arguments = json.dumps(call.get("arguments", call.get("parameters", {})))
            return [replace(self._first(str(call["name"])), arguments=arguments)]
        except (ValueError, AttributeError, KeyError):
            return None

    def _first(self, name: str) -> ToolCallDelta:
        return ToolCallDelta(self._index, "", f"call_{uuid4().hex[:24]}", name)
