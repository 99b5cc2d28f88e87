"""Calls of tools without their tags, as models too small for their chat template write them."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import regex

from gateway.parsing.calls.call_reader import match
from gateway.parsing.calls.call_run import CallRun
from gateway.parsing.calls.lax_json import LaxJson
from gateway.parsing.calls.tool_call import PartialCall, ToolCallDelta
from gateway.parsing.formats.hermes import CLOSE, OPEN
from gateway.parsing.formats.tool_parser import ContentAndCalls, ToolParser
from gateway.text.stop_strings import StopStrings

_FENCE = "```"
_AROUND = [f"{_FENCE}json\n", f"{_FENCE}xml\n", f"{_FENCE}\n", "<tools>", "</tools>", "<response>", "</response>"]
_TAGS = [OPEN, CLOSE]  # around calls only within a block
_OPENING = regex.compile(
    r"\s{0,64}+(?:```(?:json|xml)?\s{0,16}+(?:<tool_call>)?|<tools>|<response>)?\s{0,16}+(?=[{\[])"
)
_ITEMS = [regex.compile(one) for one in (r"\s", "```json", "```xml", "```", "</?(?:tools|response|tool_call)>")]
"""What may stand between calls, and behind them."""
_SPACE = re.compile(r"[\s\[\],;}]*+")


class BareCallParser:
    """Reads calls of known functions without their tags: bare, in a Markdown block, or in wrong tags.

    Qwen2.5-Coder answers so. A reply that begins with one is certain to call as soon as its arguments begin: it is
    passed on as it comes, and what follows the calls is content. Where there are words before, it is a call only if
    nothing follows; what may be such an end is held until it is decided. All else goes to the next parser.
    """

    def __init__(self, names: Sequence[str], parser: ToolParser) -> None:
        """Look for calls of the functions of these names."""
        self._names, self._next = names, parser
        self._first: _FirstCalls | None = _FirstCalls(names)
        self._num_calls = 0  # of those
        self._tag = StopStrings([OPEN])  # with tags, all is the next parser's
        self._run: _BareRun | None = None
        self._any_words = False
        self._num_fences = 0  # in the words

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        found: ContentAndCalls = []
        if self._first:
            found += self._first.push(text, last=last)
            if not self._first.stopped:
                return found
            text, self._num_calls, self._first = self._first.rest, self._first.num_calls, None
        rest = self._next.push(text, last=last) if self._num_calls else self._push_words(text, last=last)
        return found + [
            part if isinstance(part, str) else replace(part, index=part.index + self._num_calls) for part in rest
        ]

    def _push_words(self, text: str, *, last: bool) -> ContentAndCalls:
        found: ContentAndCalls = []
        while text and not self._tag.found:
            if not self._run:
                begins = re.search("[`<]" if self._any_words else r"\S", text)
                start = begins.start() if begins else len(text)
                found += self._pass(text[:start])
                text = text[start:]
                if not text:
                    break
                self._run = _BareRun(self._names, self._num_fences)
            if self._run.push(text):
                text = ""
            else:  # it is something else
                found += self._pass(self._run.text)
                self._num_fences += self._run.text.count(_FENCE)
                text, self._run = self._run.rest, None
        if text:
            found += self._pass(text)
        if last and self._run and self._run.complete:
            return [*found, *self._run.calls]
        if last:
            rest = self._run.text + self._run.rest if self._run else ""
            return [*found, *self._next.push(rest, last=True)]
        return found

    def _pass(self, text: str) -> ContentAndCalls:
        if not text:
            return []
        self._any_words |= not text.isspace()
        if not self._tag.found:
            self._tag.push(text)
        return self._next.push(text, last=False)


class _FirstCalls:
    """Calls that a reply begins with, and what may stand around them, up to what is neither."""

    def __init__(self, names: Sequence[str]) -> None:
        """Look for calls of the functions of these names."""
        self.num_calls = 0
        self.stopped = False
        self.rest = ""
        """What it came to: all of the text, if there was no call."""
        self._names = names
        self._held = self._before = ""
        self._run: CallRun | None = None

    def push(self, text: str, *, last: bool) -> list[ToolCallDelta]:
        """Return what the text adds to the calls; `last` says that it ends."""
        found = list[ToolCallDelta]()
        text, self._held = self._held + text, ""
        while not self.stopped:
            if not self._run:
                start, waits = self._start(text, last=last)
                if waits:
                    self._held = text[start:]
                    break
                if not text.startswith(("{", "["), start):
                    self._stop(text[start:])
                    break
                self._before = text[:start] * (not self.num_calls)
                self._run, text = CallRun(self.num_calls, self._names), text[start:]
            found += self._run.push(text, last=last)
            if not self._run.stopped:
                break
            self.num_calls += self._run.num_calls
            text = self._run.rest
            if not self._run.num_calls:
                self._stop(self._before + self._run.text + text)
            self._run = None
        return found

    def _start(self, text: str, *, last: bool) -> tuple[int, bool]:
        """Return where in a text calls may begin, and whether that depends on what follows."""
        if not self.num_calls:
            opening, waits = match(_OPENING, text, last=last)
            return (opening.end() if opening else 0), waits
        start = 0
        while True:
            for item in _ITEMS:
                found, waits = match(item, text, last=last, start=start)
                if found or waits:
                    break
            if waits or not found:
                return start, waits
            start = found.end()

    def _stop(self, rest: str) -> None:
        self.stopped, self.rest = True, rest


class _BareRun:
    """A text that may be calls and what may stand around them, up to where it turns out to be something else."""

    def __init__(self, names: Sequence[str], num_fences: int) -> None:
        """Begin behind so many fences of blocks."""
        self.calls: list[ToolCallDelta] = []
        self.rest = ""
        """What has not been read, since it is something else or may become that."""
        self._names = names
        self._in_block = num_fences % 2 == 1
        self._read: list[str] = []
        self._num_fences, self._num_calls = num_fences, 0
        self._json: LaxJson | None = None  # of the call that is being read
        self._call: list[str] = []  # its text, as JSON
        self._is_call = False  # whether it is known to begin as one
        self._beginning = ""  # its text without space, until that is known
        self._beginnings: list[str] = []  # those that it may still have

    @property
    def text(self) -> str:
        """What was read."""
        return "".join(self._read)

    @property
    def complete(self) -> bool:
        """Whether it could end here."""
        closed = (self._num_fences + (self.rest == _FENCE)) % 2 == 0
        return bool(self.calls) and not self._json and self.rest in {"", _FENCE} and closed

    def push(self, text: str) -> bool:
        """Go on; return whether it may still be calls."""
        text, self.rest = self.rest + text, ""
        while text:
            if self._json:
                text = self._read_call(text, self._json)
                if not self._beginnings or (self._json.ended and not self._end_call()):
                    return self._stop(text)
                continue
            space = _SPACE.match(text)
            text = self._take(text, space.end() if space else 0)
            around = [*_AROUND, *(_TAGS if self._num_fences else [])]
            whole = next((one for one in around if text.startswith(one)), "")
            if whole:
                text = self._take(text, len(whole))
                if whole.startswith(_FENCE):
                    self._num_fences += 1
                    if self._in_block:  # which ends here
                        return self._stop(text)
            elif text[:1] == "{" and text != "{":
                text = self._take(text, int(text[1] == "{"))
                self._json, self._call, self._is_call = LaxJson(), [], False
                self._beginning, self._beginnings = "", [f'{{"name":{json.dumps(name)}' for name in self._names]
            elif any(one.startswith(text) for one in [*around, "{"]):
                self.rest, text = text, ""
            else:
                return self._stop(text)
        return True

    def _take(self, text: str, length: int) -> str:
        self._read.append(text[:length])
        return text[length:]

    def _stop(self, rest: str) -> bool:
        """Be something else, of which at least the first character was read, or all of a fence."""
        self.rest = rest if any(self._read) else self._take(rest, max(len(rest) - len(rest.lstrip("`")), 1))
        return False

    def _read_call(self, text: str, reader: LaxJson) -> str:
        """Read on in a call, by characters until it is known to begin as one; return what follows."""
        part = text if self._is_call else text[:1]
        pieces = [piece for piece, _ in reader.push(part)]
        self._call += pieces
        if not self._is_call:
            self._beginning += "".join("".join(pieces).split())
            self._beginnings = [one for one in self._beginnings if one.startswith(self._beginning)]
            self._is_call = self._beginnings == [self._beginning]
        return self._take(text, len(part) - len(reader.rest))

    def _end_call(self) -> bool:
        """Return whether the call is one of a known function."""
        self._json, written = None, "".join(self._call)
        try:
            call = json.loads(written)
        except (ValueError, RecursionError):
            return False
        known = len(call) == 2 and call.get("name") in self._names
        if not known or not isinstance(call.get("arguments", call.get("parameters")), dict):
            return False
        one = PartialCall(self._num_calls)
        self.calls += [*one.push(written), *(one.finish() or [])]
        self._num_calls += 1
        return True
