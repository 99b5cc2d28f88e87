"""Calls that have to be made, in every format: what the grammar allows is read as a call that fits its schema."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from jsonschema import Draft202012Validator
from transformers import PreTrainedTokenizerFast

from gateway.parsing.formats.deepseek import DEEPSEEK
from gateway.parsing.formats.known import FORMATS
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.reply_format import ReplyFormat
from gateway.parsing.reply_parser import ReplyParser
from gateway.requests.grammar_fields import json_grammar
from gateway.requests.responses_tools import CustomTool, Offered, TextFormat, input_of
from gateway.requests.tool_fields import Function
from gateway.text.token_bytes import TokenBytes
from shared.model.sampling.grammar import GrammarMask, Grammars
from shared.sampling_params import Grammar

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mode": {"enum": ["fast", "slow"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "on": {"$ref": "#/$defs/flag"},
        "note": {"type": "string"},
    },
    "$defs": {"flag": {"type": "boolean"}},
    "required": ["mode", "count", "on"],
    "additionalProperties": False,
}
FUNCTIONS = [
    Function.model_validate({"name": "ride", "parameters": SCHEMA}),
    Function.model_validate({"name": "halt", "parameters": {"type": "object", "additionalProperties": False}}),
]
TAGS = sorted({*DEEPSEEK.tokens, *(tag for form in FORMATS.values() for tag in [*form.tokens, form.opening] if tag)})


INPUTS: dict[Literal["lark", "regex"], tuple[str, str]] = {
    "lark": ('start: "*** " /[ab]{2}/ LF?\n%import common.LF', r"\*\*\* [ab]{2}\n?"),
    "regex": ("a|b{3}/", "a|b{3}/"),
}
"""Grammars of texts, and Python's expressions for the same."""


@pytest.fixture(scope="module", params=[True, False], ids=["tags are tokens", "tags are spelled"])
def vocabulary(request: pytest.FixtureRequest, toy: tuple[Path, Path]) -> tuple[PreTrainedTokenizerFast, Grammars]:
    """Return the toy tokenizer and its grammars; tags are tokens of its own, or not."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    if request.param:
        tokenizer.add_tokens(TAGS)
    return tokenizer, Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id])


def walk(grammar: Grammar, vocabulary: tuple[PreTrainedTokenizerFast, Grammars], seed: int, begin: str = "") -> str:
    """Return a random text that conforms to the grammar, to its end or to 400 tokens; a tag is likelier than a text."""
    tokenizer, grammars = vocabulary
    mask = GrammarMask(grammar.kind, grammars.compile(grammar))
    token_ids: list[int] = tokenizer.encode(begin, add_special_tokens=False)
    mask.push(token_ids)
    torch.manual_seed(seed)
    while not mask.ended and len(token_ids) < 400:
        scores = torch.randn(len(tokenizer))
        scores[500:] += 2
        mask.process(scores)
        token_ids.append(int(scores.argmax()))
        mask.push(token_ids[-1:])
    return str(tokenizer.backend_tokenizer.decode(token_ids, skip_special_tokens=True))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("parallel", [True, False])
def test_required_calls(vocabulary: tuple[PreTrainedTokenizerFast, Grammars], name: str, *, parallel: bool) -> None:
    """Claim: one call, or several where they may be; each whole one has a known name and fits its schema."""
    form = ReplyFormat(tools=FORMATS[name], parallel=parallel, functions=FUNCTIONS)
    grammar = form.required_calls(FUNCTIONS, TokenBytes(vocabulary[0].backend_tokenizer).added)
    assert grammar
    num_whole = 0
    for seed in range(6):
        text = walk(grammar, vocabulary, seed)
        parts = ReplyParser(form).push(text, last=True)
        assert len(parts.content) < len(text) / 2  # which may be a tag that is cut off
        for call in parts.tool_calls:
            try:
                arguments = json.loads(call.arguments)
            except ValueError:
                continue  # cut off within a text
            num_whole += 1
            schemas = {function.name: function.parameters for function in FUNCTIONS}
            if call.name == "halt" or {"mode", "count", "on"} <= arguments.keys():  # else cut off behind an argument
                Draft202012Validator(schemas[call.name or ""]).validate(arguments)
        assert parallel or len(parts.tool_calls) <= 1
    assert num_whole > 0


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form is not LLAMA])
def test_an_answer_or_a_call(vocabulary: tuple[PreTrainedTokenizerFast, Grammars], name: str) -> None:
    """Claim: beside the form of an answer there may be a call, in each format."""
    form = ReplyFormat(tools=FORMATS[name], parallel=False, functions=FUNCTIONS)
    tags = TokenBytes(vocabulary[0].backend_tokenizer).added
    grammar = form.or_calls(json_grammar({"const": [5]}), FUNCTIONS[1:], tags)
    parts = ReplyParser(form).push(walk(grammar, vocabulary, 1, FORMATS[name].opening), last=True)
    assert [call.name for call in parts.tool_calls][:1] == ["halt"] or not parts.content.startswith("[5")
    assert json.loads(walk(grammar, vocabulary, 1, "[")) == [5]


@pytest.mark.parametrize("name", ["qwen3_coder", "glm45"])
@pytest.mark.parametrize("syntax", INPUTS)
def test_the_input_of_a_free_text_tool(
    vocabulary: tuple[PreTrainedTokenizerFast, Grammars], name: str, syntax: Literal["lark", "regex"]
) -> None:
    """Claim: in formats of plain text a tool's grammar binds its input, in calls that have to be made and in others."""
    definition, expected = INPUTS[syntax]
    described = TextFormat(type="grammar", syntax=syntax, definition=definition)
    tool = Offered("patch", CustomTool(type="custom", name="patch", format=described)).function["function"]
    patch, opening = Function.model_validate(tool), FORMATS[name].opening
    form, tags = (
        ReplyFormat(tools=FORMATS[name], parallel=False, functions=[patch]),
        TokenBytes(vocabulary[0].backend_tokenizer).added,
    )
    required, optional = form.required_calls([patch], tags), form.optional_calls([patch], tags)
    assert bool(optional) == (opening in tags)
    for grammar, begin in ((required, ""), (optional, opening)):
        text = walk(grammar, vocabulary, 0, begin) if grammar else ""
        for call in ReplyParser(form).push(text, last=True).tool_calls:
            assert re.fullmatch(expected, input_of(call.arguments)), text
        assert text or not grammar


@pytest.mark.parametrize("pattern", ["(?s).+", "[^;]+", "(?!x)abc"])
def test_an_input_that_may_be_anything_ends(vocabulary: tuple[PreTrainedTokenizerFast, Grammars], pattern: str) -> None:
    """Claim: at its closing tag, though the pattern matches that too; one that no grammar can hold to is a hint."""
    described = TextFormat(type="grammar", syntax="regex", definition=pattern)
    tool = Offered("patch", CustomTool(type="custom", name="patch", format=described)).function["function"]
    patch = Function.model_validate(tool)
    form = ReplyFormat(tools=FORMATS["qwen3_coder"], parallel=False, functions=[patch])
    grammar = form.required_calls([patch], TokenBytes(vocabulary[0].backend_tokenizer).added)
    assert grammar
    mask = GrammarMask(grammar.kind, vocabulary[1].compile(grammar))
    text = "<tool_call>\n<function=patch>\n<parameter=input>\nabc\n</parameter>\n</function>\n</tool_call>"
    mask.push(vocabulary[0].encode(text, add_special_tokens=False))
    assert mask.ended
