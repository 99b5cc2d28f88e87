"""One tool call, as it comes."""

import json
import re
from dataclasses import dataclass, replace
from uuid import uuid4

from gateway.parsing.json_depth import JsonDepth

_HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*'
    r'"(?:arguments|parameters)"\s*:\s*\{'
)


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of the call at this index; the call's first part has the id and the name."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class PartialCall:
    """One call, written as `{"name": …, "arguments": {…}}`. Its arguments are passed on as written.

    They end with the bracket that closes them, whether they are JSON or not. Each character is looked at once.
    """

    def __init__(self, index: int) -> None:
        """Begin a call."""
        self.ended = False
        """Whether the arguments have ended."""
        self.rest = ""
        """What the last text had after their end."""
        self._index = index
        self._pieces: list[str] = []
        self._depth = JsonDepth()
        self._sends: bool | None = None  # whether arguments are passed on; None before the first bracket within another

    @property
    def text(self) -> str:
        """Everything that was pushed."""
        return "".join(self._pieces)

    def push(self, text: str) -> list[ToolCallDelta]:
        """Add text; return the parts that it adds to the call."""
        self._pieces.append(text)
        if self.ended:
            return []
        part, start = ToolCallDelta(self._index, ""), 0
        for end, depth in self._depth.push(text):
            if self._sends is None and depth == 2:
                name = self._name("".join([*self._pieces[:-1], text[:end]]))
                self._sends, start = name is not None, end - 1
                if name is not None:
                    part = self._first(name)
            elif self._sends and depth == 1:
                self.ended, self.rest, text = True, text[end:], text[:end]
                break
        part = replace(part, arguments=text[start:] if self._sends else "")
        return [part] if part.arguments else []

    def finish(self) -> list[ToolCallDelta] | None:
        """Return what is left to return: the whole call if its keys came in another order. None if it was no call."""
        if self._sends:
            return []
        try:
            call = json.loads(self.text)
            arguments = json.dumps(call.get("arguments", call.get("parameters", {})))
            return [replace(self._first(_sound(str(call["name"]))), arguments=arguments)]
        except (ValueError, AttributeError, KeyError, RecursionError):
            return None

    def _first(self, name: str) -> ToolCallDelta:
        return ToolCallDelta(self._index, "", f"call_{uuid4().hex[:24]}", name)

    @staticmethod
    def _name(head: str) -> str | None:
        """Return the name in what stands before the arguments, up to their bracket; None if that is something else."""
        match = _HEAD.fullmatch(head)
        try:
            return _sound(json.loads(match[1])) if match else None
        except ValueError:
            return None


def _sound(name: str) -> str:
    """Return a name that can be sent. Raises ValueError if it has half a character."""
    name.encode()
    return name
