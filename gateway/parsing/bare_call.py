"""A call of a tool without its tags, as models too small for their chat template write it."""

import json
import re
from collections.abc import Sequence

from gateway.parsing.tool_call import PartialCall
from gateway.parsing.tool_parsers import ContentAndCalls, ToolParser

# Possessive, since what is looked at again for each of many spaces takes time that grows with their square.
_REPLY = re.compile(r"\s*+(?P<fence>```(?:json)?\s)?+\s*+(?P<call>\{.*\})\s*+(?(fence)```\s*+)", re.DOTALL)
_OPENINGS = ("{", "```{", "```json{")


class BareCallParser:
    """Reads a reply that is nothing but one call of a known function, bare or in a Markdown block, as a call.

    Qwen2.5-Coder answers so. A reply that begins as such a call is held until its end; any other goes to the next
    parser.
    """

    def __init__(self, names: Sequence[str], parser: ToolParser) -> None:
        """Look for calls of the functions of these names."""
        self._names, self._next = names, parser
        self._beginnings = [f'{opening}"name":{json.dumps(name)}' for opening in _OPENINGS for name in names]
        self._begun = ""  # the reply without space, until it has a whole beginning
        self._pieces: list[str] = []  # held while it may be a call
        self._is_other = False

    def push(self, text: str, *, last: bool) -> ContentAndCalls:
        """Return what the text adds."""
        if self._is_other:
            return self._next.push(text, last=last)
        self._pieces.append(text)
        if last and (written := self._call()):
            call = PartialCall(0)
            return [*call.push(written), *(call.finish() or [])]
        if not last and self._may_be_call(text):
            return []
        self._is_other = True
        before = [found for piece in self._pieces[:-1] for found in self._next.push(piece, last=False)]
        return [*before, *self._next.push(text, last=last)]

    def _may_be_call(self, text: str) -> bool:
        if self._begun not in self._beginnings and (dense := "".join(text.split())):
            self._begun += dense
            whole = [one for one in self._beginnings if self._begun.startswith(one)]
            self._begun = whole[0] if whole else self._begun
            self._beginnings = whole or [one for one in self._beginnings if one.startswith(self._begun)]
        return bool(self._beginnings)

    def _call(self) -> str | None:
        """Return the text of the call, if the reply is one."""
        reply = _REPLY.fullmatch("".join(self._pieces))
        try:
            call = json.loads(reply["call"]) if reply else {}
        except (ValueError, RecursionError):
            return None
        known = call.keys() == {"name", "arguments"} and call["name"] in self._names
        return reply["call"] if reply and known and isinstance(call["arguments"], dict) else None
