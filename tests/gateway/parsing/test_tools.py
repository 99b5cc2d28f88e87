"""Calls of tools and reasoning through the API, as OpenAI's client reads them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest
import pytest_asyncio
import tiny_tokenizer
import toy_gateway
from jsonschema import Draft202012Validator
from scripted_gateway import ROUND_TIME, ScriptedDecoder
from test_surface import TOOLS

from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer

toy_url = toy_gateway.toy_url  # assigned, for pytest looks for fixtures among a module's names

ASK: list[dict[str, Any]] = [{"role": "user", "content": "How far is it?"}]
CALL = '<tool_call>\n{"name": "ride", "arguments": {"miles": 7}}\n</tool_call>'


@pytest_asyncio.fixture
async def toy_client(toy_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return OpenAI's own client of the toy pair."""
    async with openai.AsyncOpenAI(base_url=f"{toy_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "ride"}}])
async def test_a_call_that_has_to_be_made(toy_client: openai.AsyncOpenAI, choice: Any) -> None:
    """Claim: a random model calls a tool that there is, with arguments that fit, streamed or not, on or off."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    for seed in range(4):
        calls_made = []
        for enabled in (True, False):
            ask: dict[str, Any] = {
                "model": "toy",
                "messages": ASK,
                "tools": TOOLS,
                "tool_choice": choice,
                "seed": seed,
                "parallel_tool_calls": False,
                "extra_body": {"speculative": {"enabled": enabled}},
            }
            whole = (await toy_client.chat.completions.create(**ask)).choices[0]
            assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
            calls = whole.message.tool_calls or []
            calls_made += [(call.function.name, call.function.arguments) for call in calls]
            name, arguments = "", ""
            async with toy_client.chat.completions.stream(**ask) as events:
                async for event in events:
                    if event.type == "tool_calls.function.arguments.delta":
                        name, arguments = event.name, arguments + event.arguments_delta
            calls_made.append((name, arguments))
        assert len(calls_made) == 4
        assert set(calls_made) == {calls_made[0]}
        name, arguments = calls_made[0]
        Draft202012Validator(schemas[name]).validate(json.loads(arguments))
        assert isinstance(choice, str) or name == "ride"


async def test_the_answer_to_a_call(toy_client: openai.AsyncOpenAI) -> None:
    """Claim: the chat goes on with the call and what the tool said."""
    function = {"name": "ride", "arguments": '{"miles": 7}'}
    said = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    messages = [*ASK, said, {"role": "tool", "tool_call_id": "1", "content": "7 miles"}]
    ask: dict[str, Any] = {"model": "toy", "seed": 1, "max_tokens": 5, "messages": messages, "tools": TOOLS}
    assert (await toy_client.chat.completions.create(**ask)).usage


@pytest_asyncio.fixture
async def said(tmp_path: Path) -> AsyncIterator[tuple[ScriptedDecoder, ChatTokenizer, openai.AsyncOpenAI]]:
    """Serve a decoder that plays a script, with a template that knows tools and thinking."""
    folder = tiny_tokenizer.save(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{# <tool_call> </think> {{ tools }} #}")
    tokenizer, decoder = ChatTokenizer.load(str(folder)), ScriptedDecoder()
    async with (
        toy_gateway.serve(cast("Decoder", decoder), tokenizer) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield decoder, tokenizer, client


@pytest.mark.parametrize("size", [1, 5, 200])
async def test_thought_words_and_calls(
    said: tuple[ScriptedDecoder, ChatTokenizer, openai.AsyncOpenAI], size: int
) -> None:
    """Claim: one reply can think, speak and call twice; the client finds each in its place, streamed or not."""
    decoder, tokenizer, client = said
    token_ids = [*tokenizer.encode(f"<think>\nHm.\n</think>\n\nLet me ride.\n\n{CALL}\n{CALL}"), 2]
    parts = [token_ids[start : start + size] for start in range(0, len(token_ids), size)]
    decoder.script = [Round(part, 0, 0, "stop" if part[-1] == 2 else None, ROUND_TIME) for part in parts]
    ask: dict[str, Any] = {"model": toy_gateway.MODEL, "messages": ASK, "tools": TOOLS}
    reply = await client.chat.completions.create(**ask)
    whole = reply.choices[0]
    assert (whole.finish_reason, whole.message.content) == ("tool_calls", "Let me ride.")
    extra = whole.message.model_extra or {}
    assert extra["reasoning_content"] == extra["reasoning"] == "Hm."
    assert reply.usage
    assert reply.usage.completion_tokens_details
    assert reply.usage.completion_tokens_details.reasoning_tokens == len(tokenizer.encode("<think>\nHm.\n</think>"))
    calls = whole.message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls] == [("ride", '{"miles": 7}')] * 2
    assert len({call.id for call in calls}) == 2
    thought, content, arguments = "", "", ["", ""]
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        delta = chunk.choices[0].delta
        thought += (delta.model_extra or {}).get("reasoning_content", "")
        content += delta.content or ""
        for call in delta.tool_calls or []:
            assert call.function
            assert bool(call.id) == bool(call.function.name) == (not arguments[call.index])
            arguments[call.index] += call.function.arguments or ""
    assert (thought, content, arguments) == ("Hm.", "Let me ride.", ['{"miles": 7}'] * 2)
    assert chunk.choices[0].finish_reason == "tool_calls"
    hidden = await client.chat.completions.create(**ask, extra_body={"include_reasoning": False})
    assert hidden.choices[0].message.model_extra == {}
    assert hidden.choices[0].message.content == "Let me ride."
    assert hidden.usage == reply.usage
    none = (await client.chat.completions.create(**ask, tool_choice="none")).choices[0]
    assert none.finish_reason == "stop"
    assert CALL in (none.message.content or "")


@pytest.mark.parametrize(
    ("fields", "called"),
    [
        ({}, True),
        ({"tool_choice": "none"}, False),
        ({"extra_body": {"guided_json": {"type": "object"}}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"tools": [tool | {"function": tool["function"] | {"strict": True}} for tool in TOOLS]}, False),
    ],
)
async def test_a_call_without_tags(
    said: tuple[ScriptedDecoder, ChatTokenizer, openai.AsyncOpenAI], fields: dict[str, Any], *, called: bool
) -> None:
    """Claim: Qwen2.5-Coder's way to call is a call where one was offered, and else the text, streamed or not."""
    decoder, tokenizer, client = said
    text = '```json\n{"name": "ride", "arguments": {"miles": 7}}\n```'
    decoder.script = [Round([*tokenizer.encode(text), 2], 0, 0, "stop", ROUND_TIME)]
    ask: dict[str, Any] = {"model": toy_gateway.MODEL, "messages": ASK, "tools": TOOLS} | fields
    whole = (await client.chat.completions.create(**ask)).choices[0]
    calls = [(call.function.name, call.function.arguments) for call in whole.message.tool_calls or []]
    assert (whole.message.content or "", calls) == (("", [("ride", '{"miles": 7}')]) if called else (text, []))
    assert whole.finish_reason == ("tool_calls" if called else "stop")
    deltas = [chunk.choices[0].delta async for chunk in await client.chat.completions.create(**ask, stream=True)]
    assert "".join(delta.content or "" for delta in deltas) == ("" if called else text)
    assert any(delta.tool_calls for delta in deltas) == called


@pytest.mark.parametrize("special", [True, False])
async def test_tags_that_are_special_tokens(tmp_path: Path, *, special: bool) -> None:
    """Claim: tokens that have no text elsewhere are the tags of calls, and of what is none the text stays whole."""
    tokenizer = ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path)))
    tokenizer._chat.chat_template = "{{ messages[0].content }}{# tools [TOOL_CALLS][ARGS] #}"
    (tokenizer._tokenizer.add_special_tokens if special else tokenizer._tokenizer.add_tokens)(
        ["[TOOL_CALLS]", "[ARGS]"]
    )
    tokenizer, decoder = ChatTokenizer(tokenizer._chat, tokenizer.stop_token_ids), ScriptedDecoder()
    async with toy_gateway.serve(cast("Decoder", decoder), tokenizer) as url:
        for text, content, calls in (
            ('Yes.[TOOL_CALLS]ride[ARGS]{"miles": 7}[TOOL_CALLS]halt[ARGS]{}', "Yes.", ["ride", "halt"]),
            ("[TOOL_CALLS] or not", "[TOOL_CALLS] or not", []),
        ):
            decoder.script = [Round([*tokenizer.encode(text), 2], 0, 0, "stop", ROUND_TIME)]
            body = await toy_gateway.post(url, "/v1/chat/completions", messages=ASK, tools=TOOLS)
            message = body["choices"][0]["message"]
            assert message["content"] == content
            assert [call["function"]["name"] for call in message.get("tool_calls", [])] == calls
        forced = {"tool_choice": {"type": "function", "function": {"name": "ride"}}}
        await toy_gateway.post(url, "/v1/chat/completions", messages=ASK, tools=TOOLS, **forced)
    grammar = decoder.calls[-1][1].grammar
    assert grammar
    assert f'<[{tokenizer.token_bytes.added["[TOOL_CALLS]"]}]> ("ride" <[' in grammar.text
