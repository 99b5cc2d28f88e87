"""How a model writes what is not plain text: reasoning between tags, and calls of tools."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from gateway.bare_call import BareCallParser
from gateway.decoder import FinishReason
from gateway.reasoning_parser import THINK, THOUGHT, ReasoningParser
from gateway.tool_call import ToolCallDelta
from gateway.tool_fields import Function
from gateway.tool_parsers import HermesParser, LlamaParser, ToolParser
from shared.sampling_params import JSON_WHITESPACE, Grammar

ANY_OBJECT: dict[str, Any] = {"type": "object"}
JSON_OPTIONS: dict[str, Any] = {"x-guidance": {"whitespace_pattern": JSON_WHITESPACE}}
ReplyFinish = FinishReason | Literal["tool_calls"]


@dataclass(frozen=True)
class ToolFormat:
    """How a family of models writes a call: what stands around it, and the name of its arguments."""

    parser: Callable[[], ToolParser]
    opening: str
    closing: str
    space: str
    arguments: str
    between: str
    optional: str
    """In Lark, an answer that may have calls and may not."""

    def rules(self, functions: Sequence[Function], tags: Collection[str], *, parallel: bool) -> str:
        """Return, in Lark, the rule `answer`: one call of these functions, or several. `tags` are single tokens."""
        return f"answer: calls\n{self._calls([(one, one.parameters) for one in functions], tags, parallel=parallel)}"

    def optional_rules(self, functions: Sequence[Function], tags: Collection[str], *, parallel: bool) -> str:
        """Return, in Lark, the rule `answer`: any text, and calls, those of strict functions by their schemas."""
        schemas = [(one, one.parameters if one.strict else ANY_OBJECT) for one in functions]
        return f"answer: {self.optional}\ntext: /(?s:.*)/\n{self._calls(schemas, tags, parallel=parallel)}"

    def _calls(
        self, functions: Sequence[tuple[Function, dict[str, Any]]], tags: Collection[str], *, parallel: bool
    ) -> str:
        calls = [
            f"{self._head(function)} %json {json.dumps(JSON_OPTIONS | schema)} "
            f"{json.dumps('}' + self.space)} {_tag(self.closing, tags)}"
            for function, schema in functions
        ]
        between = json.dumps(self.between)  # a reply may also end on it: who wrote it may have no more to call
        more = f" ({between} call)* {between}?" if parallel else ""
        return f"calls: call{more}\ncall: {_tag(self.opening, tags)} ({' | '.join(calls)})\n"

    def _head(self, function: Function) -> str:
        return json.dumps(f'{self.space}{{"name": {json.dumps(function.name)}, "{self.arguments}": ')


# Qwen 2.5 and 3, Hermes and their kin; Llama 3.1 to 3.3.
HERMES = ToolFormat(
    HermesParser, HermesParser.OPEN, HermesParser.CLOSE, "\n", "arguments", "\n", "text (calls /\\s*/)?"
)
LLAMA = ToolFormat(LlamaParser, "", "", "", "parameters", "; ", r"calls | /(\s*[^\s{](?s:.*))?/")


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
    bare: Sequence[str] = ()
    """The functions of which a call is one without its tags, too."""

    @classmethod
    def of(cls, template: str, prompt: str, *, tools: bool, parallel: bool) -> "ReplyFormat":
        """Return the form of the replies of a model with this chat template, to this prompt."""
        thinking = prompt.rstrip().endswith(THINK)
        return cls(THOUGHT in template or thinking, thinking, tool_format(template) if tools else None, parallel)

    def calls(self, functions: Sequence[Function], tags: Collection[str]) -> Grammar | None:
        """Return the grammar of a reply that has to call one of these functions, if there are any."""
        if not (self.tools and functions):
            return None
        return self._thoughtful(self.tools.rules(functions, tags, parallel=self.parallel), tags)

    def optional_calls(self, functions: Sequence[Function], tags: Collection[str]) -> Grammar | None:
        """Return the grammar of a reply that may call these functions, if one of them is strict.

        None also where a tag is not a single token: then any text might be the beginning of a call.
        """
        spelled = {self.tools.opening if self.tools else "", *([THINK, THOUGHT] if self.reasoning else [])} - {""}
        if not self.tools or not any(function.strict for function in functions) or not spelled <= set(tags):
            return None
        return self._thoughtful(self.tools.optional_rules(functions, tags, parallel=self.parallel), tags)

    def with_bare_calls(self, functions: Sequence[Function]) -> Self:
        """Return the format in which these functions, unless they are strict, are called without tags too."""
        bare = [function.name for function in functions if not function.strict]
        return replace(self, bare=bare) if self.tools is HERMES else self

    def thoughtful(self, grammar: Grammar, tags: Collection[str]) -> Grammar:
        """Return the grammar of a reply that may think before it conforms to this one."""
        if not self.reasoning or grammar.kind == "lark":
            return grammar
        if grammar.kind == "regex":
            escaped = re.sub(r"(?<!\\)/", r"\/", grammar.text)
            return self._thoughtful(f"answer: /{escaped}/\n", tags)
        try:
            schema = JSON_OPTIONS | json.loads(grammar.text)
        except (ValueError, TypeError):
            return grammar  # the target says what is wrong with it
        return self._thoughtful(f"answer: %json {json.dumps(schema)}\n", tags)

    def _thoughtful(self, answer: str, tags: Collection[str]) -> Grammar:
        if not self.reasoning:
            return Grammar("lark", f"start: answer\n{answer}")
        opening, closing = _tag(THINK, tags), _tag(THOUGHT, tags)
        thought = f"thought: /(?s:.*)/ {closing}" if THOUGHT in tags else f"thought[suffix={closing}]: /(?s:.*)/"
        start = "thought space answer" if self.thinking else f"({opening} thought space)? answer"
        return Grammar("lark", f"start: {start}\n{thought}\nspace: /\\s*/\n{answer}")


PLAIN = ReplyFormat()


def _tag(text: str, tags: Collection[str]) -> str:
    """Return, in Lark, a tag that is a single token, or one that is spelled like any text."""
    return text if text in tags else json.dumps(text) if text else ""


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
        if self._tools and form.bare:
            self._tools = BareCallParser(form.bare, self._tools)
        self._called = False

    @property
    def reasoning_tokens(self) -> int:
        """How many of the texts, one a token, were thought rather than said, their tags included."""
        return self._reasoning.num_pieces if self._reasoning else 0

    def push(self, *texts: str, last: bool) -> Parts:
        """Return what these texts add; `last` says that the reply ends with them."""
        parts = Parts("".join(texts))
        if self._reasoning and texts:
            pieces = [
                self._reasoning.push(text, last=last and number == len(texts)) for number, text in enumerate(texts, 1)
            ]
            parts.reasoning, parts.content = ("".join(column) for column in zip(*pieces, strict=True))
        if self._tools:
            parts.content, calls = self._tools.push(parts.content, last=last)
            parts.tool_calls = [call for call in calls if self._form.parallel or call.index == 0]
            self._called |= bool(calls)
        return parts

    def finish_reason(self, reason: FinishReason | None) -> ReplyFinish | None:
        """Return why the reply ended: for a call to be made, if it called."""
        return "tool_calls" if reason == "stop" and self._called else reason
