"""How a model writes what is not plain text: reasoning between tags, and tool calls."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Self

from gateway.parsing.reasoning_parser import THINK, THOUGHT
from gateway.parsing.tool_format import HERMES, JSON_OPTIONS, ToolFormat, _tag, tool_format
from gateway.requests.tool_fields import Function
from shared.sampling_params import Grammar


@dataclass(frozen=True)
class ReplyFormat:
    """What to look for in a reply."""

    reasoning: bool = False
    """Whether the model may think first."""
    thinking: bool = False
    """Whether the prompt has begun the thinking."""
    tools: ToolFormat | None = None
    """How tools are called, if there are any."""
    parallel: bool = True
    """Whether there may be more than one call."""
    bare: Sequence[str] = ()
    """The functions that may also be called without tags."""

    @classmethod
    def of(cls, template: str, prompt: str, *, tools: bool, parallel: bool) -> "ReplyFormat":
        """Return the form in which a model with this chat template replies to this prompt."""
        thinking = prompt.rstrip().endswith(THINK)
        return cls(THOUGHT in template or thinking, thinking, tool_format(template) if tools else None, parallel)

    def required_calls(self, functions: Sequence[Function], tags: Collection[str]) -> Grammar | None:
        """Return the grammar of a reply that must call one of these functions, if there are any."""
        if not (self.tools and functions):
            return None
        return self._with_reasoning(self.tools.rules(functions, tags, parallel=self.parallel), tags)

    def optional_calls(self, functions: Sequence[Function], tags: Collection[str]) -> Grammar | None:
        """Return the grammar of a reply that may call these functions, if one of them is strict.

        Return None also if a tag is not a single token: then any text might be the beginning of a call.
        """
        spelled = {self.tools.opening if self.tools else "", *([THINK, THOUGHT] if self.reasoning else [])} - {""}
        if not self.tools or not any(function.strict for function in functions) or not spelled <= set(tags):
            return None
        return self._with_reasoning(self.tools.optional_rules(functions, tags, parallel=self.parallel), tags)

    def with_bare_calls(self, functions: Sequence[Function]) -> Self:
        """Return the format in which these functions, unless strict, may also be called without tags."""
        bare = [function.name for function in functions if not function.strict]
        return replace(self, bare=bare) if self.tools is HERMES else self

    def after_reasoning(self, grammar: Grammar, tags: Collection[str]) -> Grammar:
        """Return the grammar of a reply that may think before it conforms to this one."""
        if not self.reasoning or grammar.kind == "lark":
            return grammar
        if grammar.kind == "regex":
            escaped = re.sub(r"(?<!\\)/", r"\/", grammar.text)
            return self._with_reasoning(f"answer: /{escaped}/\n", tags)
        try:
            schema = JSON_OPTIONS | json.loads(grammar.text)
        except (ValueError, TypeError):
            return grammar  # the target says what is wrong with it
        return self._with_reasoning(f"answer: %json {json.dumps(schema)}\n", tags)

    def _with_reasoning(self, answer: str, tags: Collection[str]) -> Grammar:
        if not self.reasoning:
            return Grammar("lark", f"start: answer\n{answer}")
        opening, closing = _tag(THINK, tags), _tag(THOUGHT, tags)
        thought = f"thought: /(?s:.*)/ {closing}" if THOUGHT in tags else f"thought[suffix={closing}]: /(?s:.*)/"
        start = "thought space answer" if self.thinking else f"({opening} thought space)? answer"
        return Grammar("lark", f"start: {start}\n{thought}\nspace: /\\s*/\n{answer}")


PLAIN = ReplyFormat()
