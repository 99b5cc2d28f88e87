"""Calls of tools without their tags, as models too small for their chat template write them."""

import json
import re
from collections.abc import Sequence

from gateway.parsing.lax_json import LaxJson
from gateway.parsing.tool_call import PartialCall, ToolCallDelta
from gateway.parsing.tool_parsers import ContentAndCalls, HermesParser, ToolParser
from gateway.text.stop_strings import StopStrings

_FENCE = "```"
_AROUND = [f"{_FENCE}json\n", f"{_FENCE}xml\n", f"{_FENCE}\n", "<tools>", "</tools>", "<response>", "</response>"]
_TAGS = [HermesParser.OPEN, HermesParser.CLOSE]  # around calls only within a block
_SPACE = re.compile(r"[\s\[\],;}]*+")


class BareCallParser:
    """Reads a reply that ends with calls of known functions as calls: bare, in a Markdown block, or in wrong tags.

    Qwen2.5-Coder answers so. Before a block or tags there may be words, and after the calls nothing. What may be such
    an end is held until it is decided; all else goes to the next parser.
    """

    def __init__(self, names: Sequence[str], parser: ToolParser) -> None:
        """Look for calls of the functions of these names."""
        self._names, self._next = names, parser
        self._tag = StopStrings([HermesParser.OPEN])  # with tags, all is the next parser's
        self._run: _BareRun | None = None
        self._any_words = False
        self._num_fences = 0  # in the words

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
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
