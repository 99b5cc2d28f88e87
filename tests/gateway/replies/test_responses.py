"""OpenAI's Responses API, as its own client reads it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
import pytest_asyncio
import tiny_tokenizer
import toy_gateway
from pydantic import BaseModel, Field
from scripted_gateway import ROUND_TIME, ScriptedDecoder
from test_surface import RESPONSES_TOOLS

from gateway.clients.errors import TargetUnavailableError
from gateway.requests.responses import ResponsesRequest
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer

toy_url = toy_gateway.toy_url  # assigned, for pytest looks for fixtures among a module's names

CALL = '<tool_call>\n{"name": "ride", "arguments": {"miles": 7}}\n</tool_call>'
Said = tuple[ScriptedDecoder, ChatTokenizer, openai.AsyncOpenAI]


@pytest_asyncio.fixture
async def said(tmp_path: Path) -> AsyncIterator[Said]:
    """Serve a decoder that plays a script, with a template that knows tools and thinking."""
    folder = tiny_tokenizer.save(tmp_path)
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{# <tool_call> </think> {{ tools }} #}"
    )
    (folder / "chat_template.jinja").write_text(template)
    tokenizer, decoder = ChatTokenizer.load(str(folder)), ScriptedDecoder()
    async with (
        toy_gateway.serve(cast("Decoder", decoder), tokenizer) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield decoder, tokenizer, client


def script(decoder: ScriptedDecoder, tokenizer: ChatTokenizer, text: str, size: int, finish: Any = "stop") -> None:
    """Script this text, so many tokens a round."""
    token_ids = tokenizer.encode(text)
    parts = [token_ids[start : start + size] for start in range(0, len(token_ids), size)]
    rounds = [Round(part, 0, 0, None, ROUND_TIME) for part in parts[:-1]]
    decoder.script = [*rounds, Round(parts[-1], 0, 0, finish, ROUND_TIME)]


@pytest.mark.parametrize("size", [1, 4, 200])
async def test_items_and_their_events(said: Said, size: int) -> None:
    """Claim: thought, message and calls are items in order; the events build up what the last one has whole."""
    decoder, tokenizer, client = said
    text = f"<think>\nHm.\n</think>\n\nLet me ride.\n\n{CALL}\n{CALL}"
    script(decoder, tokenizer, text, size)
    ask: dict[str, Any] = {
        "model": toy_gateway.MODEL,
        "input": "How far?",
        "tools": RESPONSES_TOOLS,
        "extra_body": {"seed": 3},
    }
    whole = await client.responses.create(**ask)
    assert (whole.status, whole.output_text) == ("completed", "Let me ride.")
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
    assert (whole.model_extra or {})["seed"] == 3
    assert whole.usage
    assert whole.usage.output_tokens == len(tokenizer.encode(text))
    thought = tokenizer.encode("<think>\nHm.\n</think>")
    assert whole.usage.output_tokens_details.reasoning_tokens == len(thought)
    events = [event async for event in await client.responses.create(**ask, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last.type == "response.completed"
    texts: dict[tuple[int, str], str] = {}
    done: dict[int, Any] = {}
    for event in events:
        if event.type.endswith(".delta"):
            place = (cast("Any", event).output_index, event.type.split(".")[1])
            texts[place] = texts.get(place, "") + cast("Any", event).delta
        if event.type == "response.output_item.added":
            assert event.output_index == len(done)
            assert cast("Any", event.item).status == "in_progress"
        if event.type == "response.output_item.done":
            done[event.output_index] = event.item
    arguments = '{"miles": 7}'
    assert texts == {
        (0, "reasoning_text"): "Hm.",
        (1, "output_text"): "Let me ride.",
        (2, "function_call_arguments"): arguments,
        (3, "function_call_arguments"): arguments,
    }
    assert [item.to_dict() for item in done.values()] == [item.to_dict() for item in last.response.output]
    assert last.response.output[1].to_dict()["content"] == whole.output[1].to_dict()["content"]


@pytest.mark.parametrize("stream", [True, False])
async def test_text_after_a_call(said: Said, *, stream: bool) -> None:
    """Claim: what a round says after a call, or between two, is an item after it, not a part of it."""
    decoder, tokenizer, client = said
    script(decoder, tokenizer, f"{CALL}And{CALL}So", 200)
    ask: dict[str, Any] = {"model": toy_gateway.MODEL, "input": "How far?", "tools": RESPONSES_TOOLS}
    if stream:
        *_, last = [event async for event in await client.responses.create(**ask, stream=True)]
        assert last.type == "response.completed"
    output = last.response.output if stream else (await client.responses.create(**ask)).output
    said_or_called = [item.arguments if item.type == "function_call" else item.content[0].text for item in output]
    assert said_or_called == ['{"miles": 7}', "And", '{"miles": 7}', "So"]


async def test_cut_off(said: Said) -> None:
    """Claim: a reply that is cut off is incomplete and says why, as is its item."""
    decoder, tokenizer, client = said
    script(decoder, tokenizer, "the horse", 2, "length")
    reply = await client.responses.create(model=toy_gateway.MODEL, input="hi", max_output_tokens=16)
    assert (reply.status, reply.output_text) == ("incomplete", "the horse")
    assert reply.incomplete_details
    assert reply.incomplete_details.reason == "max_output_tokens"
    assert cast("Any", reply.output[0]).status == "incomplete"


async def test_errors(said: Said) -> None:
    """Claim: wrong fields are named by their names here; an error within a stream is an event."""
    decoder, tokenizer, client = said
    for fields, param in (
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x " * 200}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"input": [{"role": "king", "content": ""}]}, "input.0.role"),
        ({"previous_response_id": "x"}, "previous_response_id"),
        ({"tools": [{"type": "custom"}]}, "tools.0.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ):
        body: dict[str, Any] = {"model": toy_gateway.MODEL, "input": "hi"} | fields
        async with httpx.AsyncClient() as http:
            response = await http.post(f"{client.base_url}responses", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    script(decoder, tokenizer, "the horse rides ahead", 1)
    decoder.script = [*list(decoder.script)[:2], TargetUnavailableError("gone")]
    events = await client.responses.create(model=toy_gateway.MODEL, input="hi", stream=True)
    *_, last = [event async for event in events]
    assert last.type == "error"
    assert "gone" in last.message


def test_items_are_messages() -> None:
    """Claim: what was thought, said and called in a row is one message of the chat that is rendered."""
    request = ResponsesRequest.model_validate(
        {
            "model": "toy",
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": "How far?"},
                {"type": "reasoning", "id": "1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me ride."}]},
                {"type": "function_call", "call_id": "a", "name": "ride", "arguments": '{"miles": 7}'},
                {"type": "function_call", "call_id": "b", "name": "halt", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a", "output": "7 miles"},
            ],
        }
    )
    calls = [
        {"id": "a", "type": "function", "function": {"name": "ride", "arguments": {"miles": 7}}},
        {"id": "b", "type": "function", "function": {"name": "halt", "arguments": {}}},
    ]
    assert [message.rendered for message in request.chat.messages] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How far?"},
        {"role": "assistant", "content": "Let me ride.", "tool_calls": calls, "reasoning_content": "Hm."},
        {"role": "tool", "content": "7 miles", "tool_call_id": "a"},
    ]


async def test_the_toy_pair_responds(toy_url: str) -> None:
    """Claim: the client parses a class, and finds a call that had to be made, by a random model."""

    class Step(BaseModel):
        number: int = Field(ge=0, le=99)
        done: bool

    async with openai.AsyncOpenAI(base_url=f"{toy_url}/v1", api_key="none", max_retries=0) as client:
        parsed = await client.responses.parse(model="toy", input="Plan.", text_format=Step)
        assert isinstance(parsed.output_parsed, Step)
        tools = cast("Any", RESPONSES_TOOLS)
        called = await client.responses.create(model="toy", input="Ride.", tools=tools, tool_choice="required")
        assert called.output[0].type == "function_call"
        assert isinstance(json.loads(called.output[0].arguments), dict)
