"""One tool call, as it comes."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self
from uuid import uuid4

from gateway.parsing.calls.lax_json import LaxJson

_HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"(?:name|function)"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*'
    r'"(?:arguments|parameters)"\s*:\s*\{'
)


@dataclass(frozen=True)
class ToolCallDelta:
    """A part of the call at this index; the call's first part has the id and the name."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None

    @classmethod
    def first(cls, index: int, name: str, arguments: str = "") -> Self:
        """Return the first part of a call, with an id of its own."""
        return cls(index, arguments, f"call_{uuid4().hex[:24]}", name)


class PartialCall:
    """One call, written as `{"name": …, "arguments": {…}}`. Its arguments are passed on as they come, as JSON.

    It ends with the bracket that closes it, whatever its strings have in them. Each character is looked at once.
    """

    def __init__(self, index: int, names: Collection[str] = ()) -> None:
        """Begin a call, of one of these functions if any are named."""
        self._index, self._names = index, names
        self._pieces: list[str] = []
        self._json = LaxJson()
        self._read: list[str] = []  # as JSON, for as long as nothing was passed on
        self._sends: bool | None = None  # whether arguments are passed on; None before the first bracket within another
        self._sent = False  # whether all arguments were

    @property
    def ended(self) -> bool:
        """Whether the call has ended."""
        return self._json.ended

    @property
    def rest(self) -> str:
        """What the last text had after the end."""
        return self._json.rest

    @property
    def text(self) -> str:
        """Everything that was pushed, up to the end."""
        whole = "".join(self._pieces)
        return whole[: len(whole) - len(self.rest)] if self.ended else whole

    def push(self, text: str) -> list[ToolCallDelta]:
        """Add text, none of it after the end; return the parts that it adds to the call."""
        self._pieces.append(text)
        part, arguments = ToolCallDelta(self._index, ""), list[str]()
        for piece, depth in self._json.push(text):
            if self._sends and not self._sent:
                arguments.append(piece)
                self._sent = depth == 1 and piece.endswith("}")
            elif not self._sends:
                self._read.append(piece)
                if self._sends is None and depth == 2:
                    name = self._name("".join(self._read))
                    self._sends = name is not None
                    if name is not None:
                        part = ToolCallDelta.first(self._index, name)
                        arguments.append("{")
        part = replace(part, arguments="".join(arguments))
        return [part] if part.arguments else []

    def finish(self, *, tagged: bool = True) -> list[ToolCallDelta] | None:
        """Return what is left to return: the whole call if its keys came in another order. None if it was no call.

        What is not tagged as a call is none without arguments.
        """
        held = "" if self.ended else self._json.finish()
        if self._sends:
            return [ToolCallDelta(self._index, held)] if held and not self._sent else []
        try:
            call = json.loads("".join([*self._read, held]))
            arguments = call.get("arguments", call.get("parameters")) or ({} if tagged else call["arguments"])
            if self._names and not isinstance(arguments, dict):
                return None
            written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            name = self._sound(str(call.get("name") or call["function"]))
            return [ToolCallDelta.first(self._index, name, written)]
        except (ValueError, AttributeError, KeyError, RecursionError):
            return None

    def _name(self, head: str) -> str | None:
        """Return the name in what stands before the arguments, up to their bracket; None if that is something else."""
        match = _HEAD.fullmatch(head)
        try:
            return self._sound(json.loads(match[1])) if match else None
        except ValueError:
            return None

    def _sound(self, name: str) -> str:
        """Return a name that can be sent. Raises ValueError if it has half a character, or is none of those named."""
        name.encode()
        if self._names and name not in self._names:
            raise ValueError(name)
        return name
