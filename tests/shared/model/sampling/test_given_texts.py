"""Grammars of what clients really send: texts of any Unicode form, and schemas of tools with any keywords."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from gateway.parsing.calls.call_schema import call_schema
from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.formats.json_format import JsonFormat
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.reply_format import ReplyFormat
from gateway.parsing.reply_parser import ReplyParser
from gateway.requests.grammar_fields import choice_grammar, json_grammar
from gateway.requests.tool_fields import Function
from gateway.text.token_bytes import TokenBytes
from shared.errors import InvalidFieldError
from shared.model.sampling.grammar import GrammarMask, Grammars
from shared.sampling_params import Grammar

TAGS = dict.fromkeys(["<think>", "</think>", "<tool_call>", "</tool_call>"], 0)  # known by name
DECOMPOSED = ["e\u0301x", "\u1100\u1161", "\u2126", "\u212b", "Re\u0301sume\u0301.pdf"]
HINTS: list[dict[str, Any]] = [
    {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    {"type": "object", "propertyNames": {"enum": ["a"]}, "additionalProperties": {"type": "integer"}},
    *[{"type": "string", "format": name} for name in ("binary", "byte", "password", "path", "regex", "uri-reference")],
    {"type": "integer", "format": "int64"},
    {"type": "string", "nullable": True, "contentEncoding": "base64"},
    {"not": {"type": "string"}},
    {"type": "object", "properties": {"a": {}}, "if": {"required": ["a"]}, "then": {"minProperties": 2}},
    {"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}},
    {"type": "array", "contains": {"type": "integer"}},
    {"type": "object", "properties": {"pattern": {"type": "string"}}, "unevaluatedProperties": False},
    {"type": "string", "pattern": "^(?!foo).*$"},
    {"type": "string", "pattern": r"(a|b)\1"},
    {"type": "object", "patternProperties": {"^(?=x)": {"type": "string"}}},
    *[{"type": name} for name in ("any", "STRING", "", ["string", "any"])],
    *[
        {"type": "object", "properties": {"type": {"type": "string"}}, name: None}
        for name in ("required", "enum", "items")
    ],
    {"type": "object", "properties": None, "additionalProperties": None, "description": None},
]
NONE_AT_ALL: list[dict[str, Any]] = [
    {},
    {"parameters": None},
    {"parameters": {}},
    {"parameters": {"properties": {}}},
    {"parameters": {"type": "object", "properties": {}}},
]


def compiled(folder: Path, *, nfc: bool = False) -> tuple[PreTrainedTokenizerFast, Grammars]:
    """Return the toy tokenizer with tags as tokens, and its grammars; `nfc` composes characters as Qwen's does."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([*TAGS])
    if nfc:
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    return tokenizer, Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id])


@pytest.fixture(scope="module")
def plain(toy: tuple[Path, Path]) -> tuple[PreTrainedTokenizerFast, Grammars]:
    """Return the tokenizer as it is."""
    return compiled(toy[0])


@pytest.fixture(scope="module")
def composing(toy: tuple[Path, Path]) -> tuple[PreTrainedTokenizerFast, Grammars]:
    """Return one that composes characters."""
    return compiled(toy[0], nfc=True)


def walk(
    grammar: Grammar, of: tuple[PreTrainedTokenizerFast, Grammars], seed: int = 0, begin: str = "", most: int = 300
) -> str:
    """Return a random text that conforms to the grammar, from this beginning on, to its end or to so many tokens."""
    tokenizer, grammars = of
    mask = GrammarMask(grammar.kind, grammars.compile(grammar))
    token_ids: list[int] = tokenizer.encode(begin, add_special_tokens=False)
    mask.push(token_ids)
    torch.manual_seed(seed)
    while not mask.ended and len(token_ids) < most:
        scores = torch.randn(len(tokenizer))
        mask.process(scores)
        token_ids.append(int(scores.argmax()))
        mask.push(token_ids[-1:])
    return str(tokenizer.backend_tokenizer.decode(token_ids, skip_special_tokens=True))


@pytest.mark.parametrize("text", DECOMPOSED, ids=ascii)
def test_texts_keep_their_form(composing: tuple[PreTrainedTokenizerFast, Grammars], text: str) -> None:
    """Claim: a given text comes out as it was given, though the tokenizer would compose its characters."""
    for seed in range(3):
        assert walk(choice_grammar([text]), composing, seed) == text
        assert json.loads(walk(json_grammar({"enum": [text]}), composing, seed)) == text


@pytest.mark.parametrize("schema", HINTS, ids=json.dumps)
def test_keywords_are_hints_unless_strict(plain: tuple[PreTrainedTokenizerFast, Grammars], schema: Any) -> None:
    """Claim: a call that must be made works whatever keywords the schema has."""
    parameters = {"type": "object", "properties": {"v": schema}, "required": ["v"]}
    function = Function.model_validate({"name": "f", "parameters": parameters})
    grammar = ReplyFormat(tools=HERMES).required_calls([function], TAGS)
    assert grammar
    assert '"v"' in walk(grammar, plain, begin='<tool_call>\n{"name": "f", "arguments": {"v"', most=60)


def test_strict_schemas_are_held_to(plain: tuple[PreTrainedTokenizerFast, Grammars]) -> None:
    """Claim: what a strict function's grammar cannot hold to is an error that names it."""
    function = Function.model_validate({"name": "f", "strict": True, "parameters": {"uniqueItems": True}})
    grammar = ReplyFormat(tools=HERMES).required_calls([function], TAGS)
    assert grammar
    with pytest.raises(InvalidFieldError, match="uniqueItems"):
        walk(grammar, plain)


@pytest.mark.parametrize("fields", NONE_AT_ALL, ids=json.dumps)
def test_no_parameters(plain: tuple[PreTrainedTokenizerFast, Grammars], fields: Any) -> None:
    """Claim: a function without parameters is called with an empty object; a schema without a type is an object's."""
    function = Function.model_validate({"name": "f"} | fields)
    grammar = ReplyFormat(tools=HERMES, parallel=False).required_calls([function], TAGS)
    assert grammar
    [call] = ReplyParser(ReplyFormat(tools=HERMES)).push(walk(grammar, plain), last=True).tool_calls
    assert json.loads(call.arguments) == {}
    some = call_schema(Function.model_validate({"name": "f", "parameters": {"properties": {"a": {}}}}))
    assert Draft202012Validator(some).is_valid({"b": 1})
    assert not Draft202012Validator(some).is_valid([])


@pytest.mark.parametrize(
    "form", [ReplyFormat(tools=HERMES, parallel=False, bare=["f"]), ReplyFormat(tools=LLAMA, parallel=False)]
)
def test_an_answer_or_a_call(plain: tuple[PreTrainedTokenizerFast, Grammars], form: ReplyFormat) -> None:
    """Claim: beside tools, the form of an answer keeps the model from calling none; both are read as what they are."""
    function = Function.model_validate({"name": "f"})
    grammar = form.or_calls(json_grammar({"const": {"name": "Al"}}), [function], TAGS)
    assert isinstance(form.tools, JsonFormat)
    heads = {f'{form.tools.opening}{form.tools.space}{{"name": "f", "{form.tools.arguments}": {{'}
    for head in heads | ({'{"name": "f", "arguments": {'} if form.bare else set()):
        parts = ReplyParser(form).push(walk(grammar, plain, begin=head), last=True)
        assert ([call.name for call in parts.tool_calls], parts.content) == (["f"], "")
    parts = ReplyParser(form).push(walk(grammar, plain, begin='{"name": "Al'), last=True)
    assert (list(parts.tool_calls), json.loads(parts.content)) == ([], {"name": "Al"})


@pytest.mark.parametrize("thinking", [True, False])
def test_a_thought_before_a_choice(plain: tuple[PreTrainedTokenizerFast, Grammars], *, thinking: bool) -> None:
    """Claim: a choice or a grammar in Lark binds the answer, not the thought before it, and none need be thought."""
    form = ReplyFormat(reasoning=True, thinking=thinking)
    gbnf = 'root ::= brace "a}" | "no"  # "::="\nbrace ::= [{}]'
    in_lark = 'start: /[{}]/ "a}" | "no" // }'
    for grammar in (choice_grammar(["yes", "no"]), Grammar("lark", in_lark), Grammar("lark", gbnf)):
        begin = f"{'' if thinking else '<think>'}well</think>"
        parts = ReplyParser(form).push(walk(form.after_reasoning(grammar, TAGS), plain, begin=begin), last=True)
        assert parts.reasoning == "well"
        assert parts.content in {"yes", "no", "{a}", "}a}"}
    if not thinking:
        assert walk(form.after_reasoning(choice_grammar(["yes"]), TAGS), plain, begin="y") == "yes"


def test_bytes_of_tags(plain: tuple[PreTrainedTokenizerFast, Grammars]) -> None:
    """The tags of these tests are single tokens."""
    assert TAGS.keys() <= TokenBytes(plain[0].backend_tokenizer).added.keys()
