"""Plans a reply: the grammar that constrains it, and how to read it."""

from dataclasses import dataclass, replace
from typing import Self

from gateway.parsing.formats.known import tool_format
from gateway.parsing.reasoning_parser import THINK, THOUGHT
from gateway.parsing.reply_format import PLAIN, ReplyFormat
from gateway.requests.chat import ChatRequest
from gateway.requests.generation import GenerationRequest
from gateway.requests.tool_fields import NamedTool
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.sampling_params import Grammar


@dataclass(frozen=True)
class ReplyPlan:
    """How one request's replies are constrained and read."""

    form: ReplyFormat = PLAIN
    """What to look for in the replies."""
    grammar: Grammar | None = None
    """What the replies conform to, if anything."""
    grammar_field: str = ""
    """The field of the request that asks for the grammar."""

    @classmethod
    def of(cls, tokenizer: ChatTokenizer, prompt: str, request: ChatRequest, tool_format_name: str = "auto") -> Self:
        """Plan the replies to this chat; `prompt` is its rendered text, and calls have the format of this name.

        A required call takes precedence over the form that the request asks for, which takes precedence over optional
        calls; but OpenAI's `response_format` is the form of an answer, in whose place there may be a call. Raises
        InvalidFieldError if tools are offered to a model that is not known to call any.
        """
        template, tags = tokenizer.chat_template, tokenizer.token_bytes.added
        thinking = prompt.rstrip().endswith(THINK)
        form = ReplyFormat(THOUGHT in template or thinking, thinking, shows_reasoning=request.include_reasoning)
        if request.offered:
            tools = tool_format(template, tags, tool_format_name)
            if not tools:
                problem = "the model's chat template calls none, or in a way that is not known here"
                raise InvalidFieldError("tools", f"{problem}; the gateway's flag --tool-format can name one")
            parallel = request.parallel_tool_calls and not isinstance(request.tool_choice, NamedTool)
            form = replace(form, tools=tools, parallel=parallel, functions=request.tool_functions)
        if calls := form.required_calls(request.called, tags):
            return cls(form, calls, "tools")
        if request.grammar:
            field, grammar = request.grammar
            if field == "response_format":
                form = form.with_bare_calls(request.callable)
                return cls(form, form.or_calls(grammar, request.callable, tags), field)
            wrapped = form.after_reasoning(grammar, tags)
            # One that no thought can go before says all that there is.
            return cls(replace(form, reasoning=False) if wrapped is grammar else form, wrapped, field)
        if calls := form.optional_calls(request.callable, tags):
            return cls(form, calls, "tools")
        return cls(form.with_bare_calls(request.callable))

    @classmethod
    def plain(cls, request: GenerationRequest) -> Self:
        """Plan replies that are read as plain text."""
        field, grammar = request.grammar or ("", None)
        return cls(grammar=grammar, grammar_field=field)
