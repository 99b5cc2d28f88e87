"""What some of a reply's tokens add to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Self

from gateway.parsing.tool_call import ToolCallDelta


@dataclass(frozen=True)
class ReplyPart:
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
        first, *others = parts
        calls = [part.call for part in parts if part.call]
        return (
            cls(
                "".join(part.content for part in parts),
                "".join(part.reasoning for part in parts),
                replace(calls[0], arguments="".join(call.arguments for call in calls)) if calls else None,
                sum(part.num_tokens for part in parts),
            )
            if others
            else first
        )


@dataclass(frozen=True)
class ReplyParts:
    """The parts in the order of the reply: what comes after a call is not what came before it."""

    in_order: Sequence[ReplyPart] = ()

    @classmethod
    def of(cls, parts: Iterable[ReplyPart]) -> Self:
        """Join what belongs together."""
        return cls([ReplyPart.joined(list(group)) for _, group in groupby(parts, lambda part: part.item)])

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
