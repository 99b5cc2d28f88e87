"""What some of a reply's tokens add to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Self

from gateway.parsing.calls.tool_call import ToolCallDelta


class ReplyPart(NamedTuple):
    """A piece of content, a piece of reasoning, or a part of a call."""

    content: str = ""
    reasoning: str = ""
    call: ToolCallDelta | None = None
    num_tokens: int = 0
    """How many tokens were read for it: those after the ones of the part before it."""

    @property
    def item(self) -> tuple[bool, int | None]:
        """What it is a part of; of parts in a row, those of the same item are one piece."""
        return bool(self.reasoning), self.call.index if self.call else None

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the parts of one item as one."""
        if len(parts) == 1:
            return parts[0]
        contents, reasonings, calls, nums = zip(*parts, strict=True)
        call = calls[0] and replace(calls[0], arguments="".join(call.arguments for call in calls if call))
        return cls("".join(contents), "".join(reasonings), call, sum(nums))


@dataclass(frozen=True)
class ReplyParts:
    """The parts in the order of the reply: what comes after a call is not what came before it."""

    in_order: Sequence[ReplyPart] = ()

    @classmethod
    def of(cls, parts: Iterable[ReplyPart]) -> Self:
        """Join what belongs together."""
        return cls([ReplyPart.joined(list(group)) for _, group in groupby(parts, attrgetter("item"))])

    @property
    def content(self) -> str:
        """All content."""
        return "".join(part.content for part in self.in_order)

    @property
    def reasoning(self) -> str:
        """All reasoning."""
        return "".join(part.reasoning for part in self.in_order)

    @property
    def tool_calls(self) -> list[ToolCallDelta]:
        """The parts of calls."""
        return [part.call for part in self.in_order if part.call]
