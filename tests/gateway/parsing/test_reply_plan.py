"""What a chat's reply is planned to be: which of the request's wishes goes first."""

from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizer

from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.reply_format import PLAIN
from gateway.parsing.reply_plan import ReplyPlan
from gateway.requests.chat import ChatRequest
from gateway.requests.completion import CompletionRequest
from gateway.requests.responses import ResponsesRequest
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.sampling_params import Grammar

TAGS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
REGEX: dict[str, Any] = {"structured_outputs": {"regex": "ab*"}}
REQUIRED: dict[str, Any] = {"tool_choice": "required"}
NAMED: dict[str, Any] = {"tool_choice": {"type": "function", "function": {"name": "f"}}}


def tools(*, strict: bool = False) -> dict[str, Any]:
    """Return the fields that offer two tools."""
    return {"tools": [{"type": "function", "function": {"name": name, "strict": strict}} for name in ("f", "g")]}


def load(folder: Path, template: str) -> ChatTokenizer:
    """Return a tokenizer with this chat template, to which tags are single tokens."""
    (tiny_tokenizer.save(folder) / "chat_template.jinja").write_text(template)
    tokenizer = ChatTokenizer.load(str(folder))
    tokenizer._tokenizer.add_tokens(TAGS)
    return ChatTokenizer(tokenizer._chat, tokenizer.stop_token_ids)


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """Return the tokenizer of a model that calls tools."""
    return load(tmp_path_factory.mktemp("hermes"), "{{ tools }} <tool_call>")


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """Return that of one that thinks, too."""
    return load(tmp_path_factory.mktemp("thinker"), "{{ tools }} <tool_call> </think>")


def plan(tokenizer: ChatTokenizer, prompt: str = "", **fields: Any) -> ReplyPlan:
    """Plan the reply to a chat with these fields."""
    request = ChatRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "How far is it?"}]} | fields
    )
    return ReplyPlan.of(tokenizer, prompt, request)


def test_nothing_asked_for(hermes: ChatTokenizer) -> None:
    """A chat without tools is read as text, and is free."""
    assert plan(hermes) == ReplyPlan(PLAIN)


@pytest.mark.parametrize(("mode", "names"), [("required", ["g"]), ("auto", ["g"]), ("auto", [])])
def test_allowed_tools(hermes: ChatTokenizer, mode: str, names: list[str]) -> None:
    """Claim: OpenAI's choice of some tools is as if there were no others, on chats and on responses."""
    allowed = [{"type": "function", "function": {"name": name}} for name in names]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
    kept = [tool for tool in tools(strict=True)["tools"] if tool["function"]["name"] in names]
    expected = plan(hermes, tools=kept, tool_choice=mode)
    assert plan(hermes, **tools(strict=True), tool_choice=choice) == expected
    response = ResponsesRequest.model_validate(
        {
            "input": "How far is it?",
            "tools": [{"type": "function"} | tool["function"] for tool in tools(strict=True)["tools"]],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": mode,
                "tools": [*({"type": "function", "name": name} for name in names), {"type": "web_search"}],
            },
        }
    )
    assert ReplyPlan.of(hermes, "", response.chat) == expected
    assert response.chat.offered == [tool | {"type": "function"} for tool in kept]


@pytest.mark.parametrize("tool_choice", [REQUIRED, NAMED])
def test_a_call_that_has_to_be_made_goes_first(hermes: ChatTokenizer, tool_choice: dict[str, Any]) -> None:
    """The reply is a call, whatever else is asked for; of one named function it is one call."""
    planned = plan(hermes, **tools(), **tool_choice, **REGEX)
    assert planned.grammar_field == "tools"
    assert planned.grammar
    assert planned.grammar.text.startswith("start: answer\nanswer: calls\n")
    assert ('"g"' in planned.grammar.text.replace("\\", "")) is (tool_choice == REQUIRED)
    assert planned.form.parallel is (tool_choice == REQUIRED)
    assert not planned.form.bare


@pytest.mark.parametrize("strict", [True, False])
def test_the_form_of_the_output_goes_before_calls_that_may_be_made(hermes: ChatTokenizer, *, strict: bool) -> None:
    """A reply of a form that the request gives is that, and no call without tags is looked for in it."""
    planned = plan(hermes, **tools(strict=strict), **REGEX)
    assert (planned.grammar, planned.grammar_field) == (Grammar("regex", "ab*"), "structured_outputs")
    assert planned.form.tools is HERMES
    assert not planned.form.bare


def test_calls_that_may_be_made(hermes: ChatTokenizer) -> None:
    """Strict functions constrain the reply; without one it is free, and calls without tags are calls, too."""
    strict = plan(hermes, **tools(strict=True))
    assert (strict.grammar is not None, strict.grammar_field, strict.form.bare) == (True, "tools", ())
    lax = plan(hermes, **tools())
    assert (lax.grammar, lax.grammar_field, lax.form.bare) == (None, "", ["f", "g"])
    none = plan(hermes, **tools(strict=True), tool_choice="none")
    assert none == ReplyPlan(PLAIN)


def test_reasoning_comes_before_the_form(thinker: ChatTokenizer) -> None:
    """A model that thinks may do so first, and has to where the prompt began it."""
    planned = plan(thinker, **REGEX)
    assert planned.grammar
    assert planned.grammar_field == "structured_outputs"
    assert planned.grammar.text.startswith("start: (<think> thought space)? answer\n")
    begun = plan(thinker, "assistant\n<think>\n", **REGEX)
    assert begun.form.thinking
    assert begun.grammar
    assert begun.grammar.text.startswith("start: thought space answer\n")


def test_tools_that_the_model_cannot_call(tmp_path: Path) -> None:
    """A model whose template is not known to call tools is not offered any."""
    with pytest.raises(InvalidFieldError, match="tools: "):
        plan(load(tmp_path, "{{ messages }}"), **tools())


def test_completions_are_plain() -> None:
    """A completion is read as text, and keeps to the form that is asked for as it stands."""
    request = CompletionRequest.model_validate({"model": "m", "prompt": "a", **REGEX})
    assert ReplyPlan.plain(request) == ReplyPlan(PLAIN, Grammar("regex", "ab*"), "structured_outputs")
