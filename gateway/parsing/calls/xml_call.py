"""A call whose arguments stand between tags, each as plain text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from gateway.parsing.calls.argument_text import ArgumentText, Json, types_of
from gateway.parsing.calls.call_reader import match
from gateway.parsing.calls.one_call import OneCall
from gateway.parsing.calls.tool_call import ToolCallDelta
from gateway.requests.tool_fields import Function


@dataclass(frozen=True)
class XmlTags:
    """How a call is written, as patterns, each of a bounded length."""

    head: regex.Pattern[str]
    """What stands before the first argument, with a group `name`."""
    next: regex.Pattern[str]
    """What begins an argument, with a group `key`, or ends the call."""
    value_end: regex.Pattern[str]
    """What ends a value. A group `key` makes it one only if that is a parameter's name: its closing tag is missing."""
    last_value_end: regex.Pattern[str]
    """The same at the end of the reply."""


class XmlCall(OneCall):
    """Reads one call, and makes JSON of its arguments by the types of the function's parameters.

    Nothing is escaped between these tags. So a closing tag ends a value only where something may follow it.
    """

    def __init__(self, index: int, tags: XmlTags, functions: Sequence[Function], *, known: bool = False) -> None:
        """Begin the call at this index, of any function or, if `known`, of one of these."""
        super().__init__(index)
        self._tags, self._known = tags, known
        self._schemas: dict[str, Json] = {function.name: function.parameters or {} for function in functions}
        self._before = self._name = ""
        self._value: ArgumentText | None = None
        self._keys: list[str] = []

    @property
    def text(self) -> str:
        """What stands before `rest`, if there was no call."""
        return self._before

    def push(self, text: str, *, last: bool) -> list[ToolCallDelta]:
        """Return what the text adds to the call."""
        text, self._held = self._held + text, ""
        written, was_sent = list[str](), self.num_calls > 0
        while not self.stopped and not self._held:
            if self._value:
                text = self._read_value(self._value, text, written, last=last)
                if last and self._value:
                    break
            elif self._name:
                text = self._read_next(text, written, last=last)
            else:
                text = self._read_head(text, last=last)
            if not text and not last:
                break
        arguments = "".join(written)
        if self.num_calls and not was_sent:
            return [ToolCallDelta.first(self._index, self._name, arguments)]
        return [ToolCallDelta(self._index, arguments)] if arguments else []

    def _read_head(self, text: str, *, last: bool) -> str:
        head, waits = match(self._tags.head, text, last=last)
        if not head or (self._known and head["name"] not in self._schemas):
            return self._wait_or_stop(text, waits=waits)
        self._before, self._name = head[0], head["name"]
        return text[head.end() :]

    def _read_next(self, text: str, written: list[str], *, last: bool) -> str:
        """Read the beginning of an argument, or the end of the call; something else ends it too."""
        found, waits = match(self._tags.next, text, last=last)
        if not found:
            if self.num_calls and not waits:
                written.append("}")
            return self._wait_or_stop(text, waits=waits)
        text = text[found.end() :]
        if found["key"] is None:
            written.append("}" if self.num_calls else "{}")
            self.num_calls = 1
            return self._wait_or_stop(text, waits=False)
        key = found["key"].strip()
        written.append(f"{', ' if self.num_calls else '{'}{json.dumps(key, ensure_ascii=False)}: ")
        self.num_calls = 1
        self._keys.append(key)
        self._value = ArgumentText(self._types(key))
        return text

    def _read_value(self, value: ArgumentText, text: str, written: list[str], *, last: bool) -> str:
        pattern, start = self._tags.last_value_end if last else self._tags.value_end, 0
        while end := pattern.search(text, start, partial=not last):
            if end.partial:
                written.append(value.push(text[: end.start()]))
                self._held = text[end.start() :]
                return ""
            if end["key"] is None or self._is_missing(end["key"]):
                written += [value.push(text[: end.start()]), value.finish()]
                self._value = None
                return text[end.end() :]
            start = end.start() + 1
        written += [value.push(text), value.cut() if last else ""]
        return ""

    def _is_missing(self, key: str) -> bool:
        return key not in self._keys and key in self._properties

    @property
    def _properties(self) -> Json:
        properties = self._schemas.get(self._name, {}).get("properties")
        return properties if isinstance(properties, dict) else {}

    def _types(self, key: str) -> frozenset[str]:
        schema = self._schemas.get(self._name, {})
        return types_of(self._properties.get(key, schema.get("additionalProperties")), schema)
