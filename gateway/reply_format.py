"""How a model writes what is not plain text: reasoning between tags, and calls of tools."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.decoder import FinishReason
from gateway.reasoning_parser import THINK, THOUGHT, ReasoningParser
from gateway.tool_call import ToolCallDelta
from gateway.tool_fields import Function
from gateway.tool_parsers import HermesParser, LlamaParser, ToolParser
from shared.sampling_params import JSON_WHITESPACE, Grammar

JSON_OPTIONS: dict[str, Any] = {"x-guidance": {"whitespace_pattern": JSON_WHITESPACE}}
ReplyFinish = FinishReason | Literal["tool_calls"]


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes a call: what stands around it, and the name of its arguments."""

    parser: Callable[[], ToolParser]
    before: str
    after: str
    arguments: str
    between: str

    def grammar(self, functions: Sequence[Function], *, parallel: bool) -> Grammar:
        """Return the grammar of one call of these functions, or of several."""
        calls = [
            f"{json.dumps(self.before + self._head(function))} %json {json.dumps(JSON_OPTIONS | function.parameters)} "
            f"{json.dumps('}' + self.after)}"
            for function in functions
        ]
        more = f" ({json.dumps(self.between)} call)*" if parallel else ""
        return Grammar("lark", f"start: call{more}\ncall: {' | '.join(calls)}\n")

    def _head(self, function: Function) -> str:
        return f'{{"name": {json.dumps(function.name)}, "{self.arguments}": '


# Qwen 2.5 and 3, Hermes and their kin; Llama 3.1 to 3.3.
HERMES = ToolFormat(HermesParser, "<tool_call>\n", "\n</tool_call>", "arguments", "\n")
LLAMA = ToolFormat(LlamaParser, "", "", "parameters", "; ")


def tool_format(template: str) -> ToolFormat | None:
    """Return how a model with this chat template calls tools; None if it does not, or in a way not known here."""
    if "<tool_call>" in template and "<function=" not in template:
        return HERMES
    return LLAMA if "tools" in template and '"parameters"' in template else None


@dataclass(frozen=True)
class ReplyFormat:
    """What to look for in a reply."""

    reasoning: bool = False
    """Whether the model may think first."""
    thinking: bool = False
    """Whether the prompt has begun the thinking."""
    tools: ToolFormat | None = None
    """How tools are called, where there are any."""
    parallel: bool = True
    """Whether there may be more than one call."""

    @classmethod
    def of(cls, template: str, prompt: str, *, tools: bool, parallel: bool) -> "ReplyFormat":
        """Return the form of the replies of a model with this chat template, to this prompt."""
        thinking = prompt.rstrip().endswith(THINK)
        return cls(THOUGHT in template or thinking, thinking, tool_format(template) if tools else None, parallel)


PLAIN = ReplyFormat()


@dataclass
class Parts:
    """What a piece of text added to a reply."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = field(default_factory=list)


class ReplyParser:
    """Parts the text of one reply, as it comes."""

    def __init__(self, form: ReplyFormat) -> None:
        """Begin a reply of this form."""
        self._form = form
        self._reasoning = ReasoningParser(thinking=form.thinking) if form.reasoning else None
        self._tools = form.tools.parser() if form.tools else None
        self._called = False

    def push(self, text: str, *, last: bool) -> Parts:
        """Return what this text adds; `last` says that the reply ends with it."""
        parts = Parts(text)
        if self._reasoning:
            parts.reasoning, parts.content = self._reasoning.push(text, last=last)
        if self._tools:
            parts.content, calls = self._tools.push(parts.content, last=last)
            parts.tool_calls = [call for call in calls if self._form.parallel or call.index == 0]
            self._called |= bool(calls)
        return parts

    def finish_reason(self, reason: FinishReason | None) -> ReplyFinish | None:
        """Return why the reply ended: for a call to be made, if it called."""
        return "tool_calls" if reason == "stop" and self._called else reason
