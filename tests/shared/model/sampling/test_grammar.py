"""Output that conforms to a grammar, whatever the draft does."""

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
import torch
import toy_gateway
from adversary import Adversary, serve
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field
from random_schemas import random_schema
from services import StartService, decoder
from transformers import PreTrainedTokenizerFast

from gateway.clients.target.client import TargetClient
from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.formats.json_format import JsonFormat
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.reply_format import ReplyFormat
from gateway.parsing.reply_parser import ReplyParser
from gateway.requests.tool_fields import Function
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from gateway.text.token_bytes import TokenBytes
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.model.checkpoints.toy_pair import TOKENIZER_SIZE
from shared.model.sampling.grammar import GrammarMask, Grammars
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import Grammar, SamplingParams

toy_url = toy_gateway.toy_url  # assigned, for pytest looks for fixtures among a module's names

NUM_SCHEMAS = 300
SPACES: list[dict[str, Any]] = [
    {},
    *[{"x-guidance": {"whitespace_pattern": "[ \\n]{0,2}"}}] * 9,
    *[{"x-guidance": {"whitespace_pattern": ""}}] * 40,
]
"""As much space as may be, of which a random model makes 80 % of its output, and less: in turn."""
MAX_TOKENS = 1500
PROMPT = [70, 80, 90]


@pytest.fixture(scope="module")
def tokenizer(toy: tuple[Path, Path]) -> ChatTokenizer:
    """Return the toy pair's tokenizer."""
    return ChatTokenizer.load(str(toy[0]))


@pytest_asyncio.fixture(scope="module", params=["good", "adversarial"])
async def decode(
    request: pytest.FixtureRequest, start: StartService, toy: tuple[Path, Path], tokenizer: ChatTokenizer
) -> AsyncIterator[Decoder]:
    """Decode with the toy target and its draft, or with a draft that means harm."""
    target = start("target_service", model=toy[0], dtype="float32").address
    if request.param == "good":
        draft = start("draft_service", model=toy[1], dtype="float32").address
        async with decoder(target, draft) as decode:
            yield decode
        return
    async with decoder(target, None) as plain:
        adversary = Adversary(plain.target, min(tokenizer.stop_token_ids))
    async with serve(adversary) as address, decoder(target, address) as decode:
        yield decode
    assert adversary.num_proposals > 0


async def run(decode: Decoder, params: SamplingParams, k: int) -> list[Round]:
    """Return the rounds."""
    return [done async for done in decode.decode(PROMPT, params, MAX_TOKENS, k)]


def text_of(tokenizer: ChatTokenizer, rounds: list[Round], params: SamplingParams) -> str:
    """Return what the rounds say, without a stop token at the end."""
    token_ids = [token_id for done in rounds for token_id in done.token_ids]
    return tokenizer.decode(token_ids[:-1] if token_ids[-1] in params.stop_token_ids else token_ids)


async def harmed(
    target: TargetClient, params: SamplingParams, expected: Sequence[int], rng: random.Random
) -> list[int]:
    """Return the reply to draft tokens that begin as expected, go wrong somewhere, and then mean harm."""
    token_ids: list[int] = []
    stop, ended = min(params.stop_token_ids), False
    async with target.session(PROMPT, params, MAX_TOKENS) as session:
        while not ended:
            right = expected[len(token_ids) :][: rng.randint(0, 6)]
            wrong = rng.choice(
                [[*PROMPT, *token_ids][-1:] * 3, [stop] * 3, list(range(3)), [TOKENIZER_SIZE - 1] * 3, []]
            )
            verified = await session.verify([*right, *wrong])
            token_ids, ended = [*token_ids, *verified.token_ids], bool(verified.finish_reason)
            assert verified.finish_reason in {pb.FINISH_REASON_UNSPECIFIED, pb.FINISH_REASON_STOP}
    return token_ids


async def test_every_output_validates(start: StartService, toy: tuple[Path, Path], tokenizer: ChatTokenizer) -> None:
    """300 random schemas: the output parses, validates, ends by itself, and is the same when a draft means harm.

    A third of them are decoded without speculation too.
    """
    turns = asyncio.Semaphore(8)
    target = start("target_service", model=toy[0], dtype="float32").address
    draft = start("draft_service", model=toy[1], dtype="float32").address

    async def one(seed: int) -> list[Round]:
        schema = random_schema(random.Random(seed))
        params = SamplingParams(
            temperature=(seed % 3) / 2,
            seed=seed,
            stop_token_ids=tokenizer.stop_token_ids,
            grammar=Grammar("json_schema", json.dumps(schema | SPACES[seed % len(SPACES)])),
            presence_penalty=0.5 * (seed % 2),
        )
        async with turns:
            rounds = await run(decode, params, (1, 2, 3, 4, 8)[seed % 5])
            token_ids = [token_id for done in rounds for token_id in done.token_ids]
            assert await harmed(client, params, token_ids, random.Random(seed)) == token_ids
            if seed % 3 == 0:
                plain = await run(decode, params, 0)
                assert [token_id for done in plain for token_id in done.token_ids] == token_ids
        text = text_of(tokenizer, rounds, params)
        assert rounds[-1].finish_reason == "stop", (schema, text)
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(text))
        return rounds

    client = TargetClient(target)
    async with decoder(target, draft) as decode:
        rounds = [done for reply in await asyncio.gather(*map(one, range(NUM_SCHEMAS))) for done in reply]
    await client.close()
    assert 0.5 < sum(done.num_accepted for done in rounds) / sum(done.num_drafted for done in rounds) < 0.98


@pytest.mark.parametrize(
    ("grammar", "whole"),
    [
        (Grammar("regex", "[a-f]{3}-[0-9]{2,4}"), r"[a-f]{3}-[0-9]{2,4}"),
        (Grammar("regex", ""), ""),
        (Grammar("lark", 'start: "yes" | "no"'), "yes|no"),
        (Grammar("lark", 'root ::= ("ab" | "cd") root2\nroot2 ::= [0-9] [0-9]'), "(ab|cd)[0-9][0-9]"),
    ],
)
async def test_regex_and_grammars(decode: Decoder, tokenizer: ChatTokenizer, grammar: Grammar, whole: str) -> None:
    """The output matches as a whole, also where no stop token was named and min_tokens asks for more than there is."""
    for seed in range(6):
        params = SamplingParams(seed=seed, grammar=grammar, min_tokens=20, stop_token_ids=tokenizer.stop_token_ids)
        for asked in (params, SamplingParams(seed=seed, grammar=grammar)):
            rounds = await run(decode, asked, 4)
            assert rounds[-1].finish_reason == "stop"
            text = tokenizer.decode([i for done in rounds for i in done.token_ids if i not in params.stop_token_ids])
            assert re.fullmatch(whole, text)


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        (Grammar("json_schema", '{"type": "objectt"}'), "objectt"),
        (Grammar("json_schema", "{"), ""),
        (Grammar("json_schema", '{"not": {}}'), "not"),
        (Grammar("json_schema", "false"), "object"),
        (Grammar("regex", "[a-z"), "regex"),
        (Grammar("lark", "start: other"), "other"),
    ],
)
async def test_a_bad_grammar_is_refused(decode: Decoder, grammar: Grammar, problem: str) -> None:
    """It is named, before anything is decoded, and holds no slot."""
    for _ in range(10):  # more often than there are slots
        with pytest.raises(InvalidFieldError) as caught:
            await run(decode, SamplingParams(grammar=grammar), 4)
        assert caught.value.field == grammar.kind
        assert problem in str(caught.value)


def test_random_schemas_are_schemas() -> None:
    """They are valid, and not all alike."""
    schemas = [random_schema(random.Random(seed)) for seed in range(300)]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
    assert len({json.dumps(schema) for schema in schemas}) > 290


async def test_response_format_of_the_api(toy_url: str) -> None:
    """OpenAI's client gets an object of the class it asked for; a bad schema is a 400 that names the field."""

    class Step(BaseModel):
        number: int = Field(ge=0, le=99)
        title: str = Field(max_length=8)
        done: bool

    class Plan(BaseModel):
        steps: list[Step] = Field(max_length=2)

    async with openai.AsyncOpenAI(base_url=f"{toy_url}/v1", api_key="none", max_retries=0) as client:
        ask: dict[str, Any] = {"model": "toy", "messages": [{"role": "user", "content": "Plan."}], "seed": 3}
        plan = (await client.chat.completions.parse(**ask, response_format=Plan)).choices[0].message.parsed
        assert isinstance(plan, Plan)
        for fields, param in (
            ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "response_format"),
            ({"structured_outputs": {"regex": "[a-z"}}, "structured_outputs"),
            ({"guided_grammar": "start: other"}, "guided_grammar"),
            ({"guided_regex": "a", "guided_choice": ["a"]}, None),
        ):
            for stream in (False, True):
                with pytest.raises(openai.BadRequestError) as caught:
                    await client.chat.completions.create(**ask, stream=stream, extra_body=fields)
                assert caught.value.param == param
        asked = {"json": {"type": "array", "items": {"const": 1}, "minItems": 3, "maxItems": 3}}
        forms: list[tuple[dict[str, Any], str]] = [
            ({"disable_any_whitespace": True}, "[1,1,1]"),
            ({"whitespace_pattern": " "}, "[ 1, 1, 1 ]"),
        ]
        for options, text in forms:
            body = {"structured_outputs": asked | options}
            reply = await client.chat.completions.create(**ask, extra_body=body)
            assert reply.choices[0].message.content == text


@lru_cache(maxsize=1)
def grammars_of(tokenizer: PreTrainedTokenizerFast) -> Grammars:
    """Compile for a tokenizer's own vocabulary."""
    return Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id])


def walk(
    grammar: Grammar, tokenizer: PreTrainedTokenizerFast, seed: int, likely: Sequence[str] = ()
) -> tuple[str, bool]:
    """Return a random text that conforms to the grammar, and whether it ended within 400 tokens."""
    favoured = tokenizer.convert_tokens_to_ids(list(likely))
    torch.manual_seed(seed)
    mask = GrammarMask(grammar.kind, grammars_of(tokenizer).compile(grammar))
    token_ids: list[int] = []
    while not mask.ended and len(token_ids) < 400:
        scores = torch.randn(len(tokenizer))
        scores[favoured] += 3
        mask.process(scores)
        token_ids.append(int(scores.argmax()))
        mask.push(token_ids[-1:])
    return str(tokenizer.backend_tokenizer.decode(token_ids, skip_special_tokens=True)), mask.ended


@pytest.mark.parametrize("added", [True, False], ids=["tags are tokens", "tags are spelled"])
def test_thought_and_calls(toy: tuple[Path, Path], added: bool) -> None:  # noqa: FBT001
    """Thinking first is allowed, the tags being tokens of their own or not; what comes after conforms."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    if added:
        tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    tags = TokenBytes(tokenizer.backend_tokenizer).added
    function = Function.model_validate({"name": "f", "parameters": {"type": "object", "additionalProperties": False}})
    ended = thought = 0
    for seed in range(12):
        form = ReplyFormat(reasoning=True, thinking=seed % 2 == 0, tools=HERMES, parallel=False)
        for grammar in (
            form.required_calls([function], tags),
            form.after_reasoning(Grammar("json_schema", '{"const": 5}'), tags),
        ):
            assert grammar
            text, whole = walk(grammar, tokenizer, seed)
            if not whole:
                continue  # it thinks on
            parts = ReplyParser(form).push(text, last=True)
            ended, thought = ended + 1, thought + bool(parts.reasoning)
            if parts.tool_calls:
                [call] = parts.tool_calls
                assert (call.name, json.loads(call.arguments), parts.content) == ("f", {}, "")
            else:
                assert json.loads(parts.content) == 5
    assert ended > 0
    if not added:  # then a random text hardly ever spells the end of its thought
        return
    assert thought > 0
    plain = Grammar("json_schema", '{"const": "<tool_call>"}')  # llguidance wants tokens here that it then refuses
    with pytest.raises(InvalidFieldError, match="json_schema"):
        walk(plain, tokenizer, 0)


@pytest.mark.parametrize(
    "form", [ReplyFormat(tools=HERMES), ReplyFormat(tools=LLAMA), ReplyFormat(reasoning=True, tools=HERMES)]
)
def test_calls_that_may_be_made(toy: tuple[Path, Path], form: ReplyFormat) -> None:
    """The reply is any text, or calls: those of strict functions fit their schemas; and without a strict one, any."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    tokens = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
    tokenizer.add_tokens(tokens)
    tags = TokenBytes(tokenizer.backend_tokenizer).added
    functions = [
        Function.model_validate({"name": "f", "strict": True, "parameters": {"const": {"a": 5}}}),
        Function.model_validate({"name": "g", "parameters": {"const": {"a": 5}}}),
    ]
    assert form.optional_calls(functions[1:], tags) is None
    grammar = form.optional_calls(functions, tags)
    assert grammar
    called = said = 0
    for seed in range(30):
        text, _ = walk(grammar, tokenizer, seed, ["{", tokenizer.eos_token, *tokens])
        parts = ReplyParser(form).push(text, last=True)
        for call in parts.tool_calls:
            if call.name == "f" and call.arguments.endswith("}"):
                assert json.loads(call.arguments) == {"a": 5}
                called += 1
        said += bool(parts.content)
    assert called > 0
    assert said > 0


@pytest.mark.parametrize("form", [ReplyFormat(tools=HERMES), ReplyFormat(tools=LLAMA)])
def test_a_reply_may_end_on_what_stands_between_calls(toy: tuple[Path, Path], form: ReplyFormat) -> None:
    """A model that writes it after its call need not call again: Qwen 2.5 Coder would, until its context is full."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    function = Function.model_validate({"name": "f", "parameters": {"type": "object", "additionalProperties": False}})
    grammar = form.required_calls([function], {})
    assert grammar
    assert isinstance(form.tools, JsonFormat)
    mask = GrammarMask(grammar.kind, grammars_of(tokenizer).compile(grammar))
    space, arguments = form.tools.space, form.tools.arguments
    call = f'{form.tools.opening}{space}{{"name": "f", "{arguments}": {{}}}}{space}{form.tools.closing}'
    for text in (call, form.tools.between):
        mask.push(tokenizer.encode(text, add_special_tokens=False))
        scores = torch.zeros(len(tokenizer))
        mask.process(scores)
        assert scores[tokenizer.eos_token_id] == 0
        assert not mask.ended
    [part] = ReplyParser(form).push(call + form.tools.between, last=True).tool_calls
    assert (part.name, part.arguments) == ("f", "{}")


async def test_a_grammar_that_fails_ends_its_own_session(decode: Decoder) -> None:
    """One that grows too complex while it is followed is the request's error, and the service goes on."""
    grammar = Grammar("lark", 'start: a\na: a a | "x" | ""\n')
    params = SamplingParams(grammar=grammar, temperature=0)
    with contextlib.suppress(InvalidFieldError):
        await run(decode, params, 4)
    assert await run(decode, SamplingParams(temperature=0, stop_token_ids=frozenset(range(500))), 4)


def test_a_slow_mask_ends_its_session(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A grammar whose mask takes long is not asked for another: all other sessions wait meanwhile."""
    monkeypatch.setattr("shared.model.sampling.grammar.STEP_SECONDS", 0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy[0])
    grammars = Grammars(tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    mask = GrammarMask("regex", grammars.compile(Grammar("regex", "[a-z]{4}")))
    with pytest.raises(InvalidFieldError, match="takes more than 0 s for a token"):
        mask.process(torch.zeros(len(tokenizer)))
