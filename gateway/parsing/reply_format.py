"""How a model writes what is not plain text: reasoning between tags, and tool calls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from gateway.parsing.formats.tool_format import Tags, ToolFormat, tag
from gateway.parsing.grammar_part import as_part
from gateway.parsing.reasoning_parser import THINK, THOUGHT
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
    functions: Sequence[Function] = ()
    """Those that may be called, whose schemas tell the types of their arguments."""
    shows_reasoning: bool = True
    """Whether what is thought is passed on."""

    @property
    def tokens(self) -> Sequence[str]:
        """Special tokens that are looked for in the text, where they are special in the model's vocabulary."""
        return [*(self.tools.tokens if self.tools else ()), *([THINK, THOUGHT] if self.reasoning else ())]

    def required_calls(self, functions: Sequence[Function], tags: Tags) -> Grammar | None:
        """Return the grammar of a reply that must call one of these functions, if there are any."""
        if not (self.tools and functions):
            return None
        return self._with_reasoning(self.tools.rules(functions, tags, parallel=self.parallel), tags)

    def optional_calls(self, functions: Sequence[Function], tags: Tags) -> Grammar | None:
        """Return the grammar of a reply that may call these functions, if one of them is held to its form.

        Return None also if a tag is not a single token: then any text might be the beginning of a call.
        """
        spelled = {self.tools.opening if self.tools else "", *([THINK, THOUGHT] if self.reasoning else [])} - {""}
        if not self.tools or not any(map(self.tools.holds, functions)) or not spelled <= {*tags}:
            return None
        return self._with_reasoning(self.tools.optional_rules(functions, tags, parallel=self.parallel), tags)

    def with_bare_calls(self, functions: Sequence[Function]) -> Self:
        """Return the format in which these functions, unless strict, may also be called without tags."""
        bare = [function.name for function in functions if not function.strict]
        return replace(self, bare=bare) if self.tools and self.tools.bare else self

    def after_reasoning(self, grammar: Grammar, tags: Tags) -> Grammar:
        """Return the grammar of a reply that may think before it conforms to this one."""
        part = as_part(grammar) if self.reasoning else None
        return self._with_reasoning(f"answer: {part}\n", tags) if part else grammar

    def or_calls(self, grammar: Grammar, functions: Sequence[Function], tags: Tags) -> Grammar:
        """Return the grammar of a reply that conforms to this one, or calls these functions."""
        part = as_part(grammar)
        if not (part and self.tools and functions):
            return self.after_reasoning(grammar, tags)
        calls = self.tools.calls_by_schema(functions, tags, parallel=self.parallel) if self.tools.opening else ""
        # Without a tag, only what is written as JSON too can be told from the form.
        bare = [function for function in functions if not calls or function.name in self.bare]
        one = f"bare: {self.tools.bare_call(bare)}\n" if bare else ""
        answer = " | ".join(["form", *(["calls"] if calls else []), *(["bare"] if one else [])])
        return self._with_reasoning(f"answer: {answer}\nform: {part}\n{calls}{one}", tags)

    def _with_reasoning(self, answer: str, tags: Tags) -> Grammar:
        if not self.reasoning:
            return Grammar("lark", f"start: answer\n{answer}")
        opening, closing = tag(THINK, tags), tag(THOUGHT, tags)
        thought = f"thought: /(?s:.*)/ {closing}" if THOUGHT in tags else f"thought[suffix={closing}]: /(?s:.*)/"
        start = "thought space answer" if self.thinking else f"({opening} thought space)? answer"
        return Grammar("lark", f"start: {start}\n{thought}\nspace: /\\s*/\n{answer}")


PLAIN = ReplyFormat()
