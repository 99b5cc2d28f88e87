"""What reads calls."""

from collections.abc import Sequence
from typing import Protocol

import regex

from gateway.parsing.calls.tool_call import ToolCallDelta


class CallReader(Protocol):
    """Takes the text behind an opening tag piece by piece, up to what is no call."""

    @property
    def num_calls(self) -> int:
        """How many calls there were."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether it came to something else."""
        ...

    @property
    def rest(self) -> str:
        """That, as far as it has come."""
        ...

    @property
    def text(self) -> str:
        """What stands before `rest`, if there was no call."""
        ...

    def push(self, text: str, *, last: bool) -> list[ToolCallDelta]:
        """Return what the text adds to the calls; `last` says that it ends: then it is stopped, or all was returned."""
        ...


def match(
    pattern: regex.Pattern[str], text: str, *, last: bool, start: int = 0
) -> tuple[regex.Match[str] | None, bool]:
    """Return the match at the beginning of a text, if there is one, and whether more text may make one.

    A pattern has to be bounded, for a text is looked at again with each piece until that is decided. It must not end
    with what may be there or not: it would match without it.
    """
    found = pattern.match(text, start, partial=not last)
    return (None, True) if found and found.partial else (found, False)


def skip(patterns: Sequence[regex.Pattern[str]], text: str, *, last: bool) -> tuple[str, bool]:
    """Return the text behind these patterns, each of which may be there or not; or all of it, and that more may be."""
    rest = text
    for pattern in patterns:
        found, waits = match(pattern, rest, last=last)
        if waits:
            return text, True
        rest = rest[found.end() :] if found else rest
    return rest, False
