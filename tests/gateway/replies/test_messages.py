"""Anthropic's Messages API: the events that its client builds a message of, and what its requests become.

The shapes are those that `anthropic` 2.14 sends and reads.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import scripted_gateway
import tiny_tokenizer
from pydantic import SecretStr
from scripted_gateway import MODEL, ROUND_TIME, Gateway, ScriptedDecoder, serve
from test_surface import MESSAGES_TOOLS

from gateway.clients.errors import TargetUnavailableError
from gateway.requests.messages import MessagesRequest
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer

PATH, COUNT = "/v1/messages", "/v1/messages/count_tokens"
ASK: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CALL = '<tool_call>\n{"name": "ride", "arguments": {"miles": 7}}\n</tool_call>'
TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] + ':' + message.content + '|' }}{% endfor %}"
    "{# <tool_call> </think> {{ tools }} #}"
)

tiny = scripted_gateway.tiny  # assigned, for pytest looks for fixtures among a module's names


@pytest_asyncio.fixture
async def said(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Serve a decoder that plays a script, with a template that knows tools and thinking."""
    folder = tiny_tokenizer.save(tmp_path)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    async with serve(ChatTokenizer.load(str(folder)), ScriptedDecoder(), model_name=f"{MODEL},claude") as gateway:
        yield gateway


async def ask(gateway: Gateway, **fields: Any) -> httpx.Response:
    """Post a request for a message."""
    body = {"model": MODEL, "max_tokens": 50, "messages": ASK} | fields
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        return await http.post(fields.pop("path", PATH), json=body)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream, whose names must be their types."""
    parts = [part.split("\ndata: ") for part in response.text.strip().split("\n\n")]
    found: list[dict[str, Any]] = [json.loads(data) for _, data in parts]
    assert [name for name, _ in parts] == [f"event: {event['type']}" for event in found]
    return found


def built(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the message that the events make, put together as `anthropic` does."""
    first, _ping, *rest, last = found
    assert (first["type"], _ping["type"], last["type"]) == ("message_start", "ping", "message_stop")
    message: dict[str, Any] = first["message"]
    inputs: dict[int, str] = {}
    for event in rest:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                assert event["index"] == len(message["content"]) - 1
                block, delta = message["content"][-1], event["delta"]
                for field in {"text", "thinking", "signature"} & delta.keys():
                    block[field] += delta[field]
                inputs[event["index"]] = inputs.get(event["index"], "") + delta.get("partial_json", "")
            case "content_block_stop":
                if message["content"][event["index"]]["type"] == "tool_use":
                    message["content"][event["index"]]["input"] = json.loads(inputs[event["index"]])
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    return message


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without what is new each time."""
    content = [{key: value for key, value in block.items() if key != "id"} for block in message["content"]]
    return {key: value for key, value in message.items() if key != "id"} | {"content": content}


@pytest.mark.parametrize("size", [1, 5, 200])
async def test_thought_words_and_calls(said: Gateway, size: int) -> None:
    """Claim: thought, words and calls are blocks in their order; the events build up the whole."""
    said.play(f"<think>\nHm.\n</think>\n\nLet me ride.\n\n{CALL}\n{CALL}", size)
    whole = (await ask(said, tools=MESSAGES_TOOLS, seed=3)).json()
    thought, words, *calls = whole["content"]
    assert (thought["type"], thought["thinking"], bool(thought["signature"])) == ("thinking", "Hm.", True)
    assert words == {"type": "text", "text": "Let me ride.", "citations": None}
    assert [(call["type"], call["name"], call["input"]) for call in calls] == [("tool_use", "ride", {"miles": 7})] * 2
    assert calls[0]["id"] != calls[1]["id"]
    assert calls[0]["id"].startswith("toolu_")
    assert (whole["role"], whole["stop_reason"], whole["stop_sequence"]) == ("assistant", "tool_use", None)
    streamed = built(events(await ask(said, tools=MESSAGES_TOOLS, seed=3, stream=True)))
    assert comparable(streamed) == comparable(whole)


async def test_stop_reasons(said: Gateway) -> None:
    """Claim: why a reply ended is told in Anthropic's words, with the stop string, be it a token's name."""
    said.play("the horse rides")
    for fields, reason, sequence in (
        ({}, "end_turn", None),
        ({"stop_sequences": ["zzz", "e ri"]}, "stop_sequence", "e ri"),
        ({"stop_sequences": ["<|im_end|>"]}, "stop_sequence", "<|im_end|>"),
    ):
        whole = (await ask(said, **fields)).json()
        assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    said.play("the horse", finish="length")
    assert (await ask(said)).json()["stop_reason"] == "max_tokens"
    assert (await ask(said, max_tokens=32_000)).json()["stop_reason"] == "model_context_window_exceeded"
    prompt_ids, _, max_tokens, _ = said.decoder.calls[-1]
    assert len(prompt_ids) + max_tokens == said.decoder.target.max_length


async def test_usage_and_reports(said: Gateway) -> None:
    """Claim: cached tokens are counted apart; speculation's metrics and rounds come where they are asked for."""
    token_ids = [*said.tokenizer.encode("so"), 2]
    said.decoder.script = [Round(token_ids, 2, 2, "stop", ROUND_TIME, num_cached=3)]
    fields = {"speculative": {"metrics": True, "rounds": True}}
    whole = (await ask(said, **fields)).json()
    count = (await ask(said, path=COUNT)).json()["input_tokens"]
    usage = whole["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (count - 3, 3)
    assert usage["output_tokens"] == len(token_ids)
    last = events(await ask(said, **fields, stream=True))[-2]
    assert last["usage"] == usage
    for reply in (whole, last):
        assert reply["metrics"]["speculative_decoding"]["num_drafts"] == 1
        assert [round_["num_drafted"] for round_ in reply["rounds"]] == [2]


async def test_a_reply_that_was_begun(said: Gateway) -> None:
    """Claim: a last message of the assistant is the beginning of the reply."""
    messages = [*ASK, {"role": "assistant", "content": [{"type": "text", "text": "The "}]}]
    assert (await ask(said, messages=messages)).status_code == 200
    assert said.tokenizer.decode(said.decoder.calls[0][0]) == "u:hi|The"


def test_turns_are_messages() -> None:
    """Claim: what a tool answered is a message of its own; thoughts and calls go with what was said."""
    request = MessagesRequest.model_validate(
        {
            "model": MODEL,
            "max_tokens": 5,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "thinking": {"type": "adaptive"},
            "tools": [*MESSAGES_TOOLS, {"type": "web_search_20250305", "name": "web_search"}],
            "tool_choice": {"type": "tool", "name": "ride", "disable_parallel_tool_use": True},
            "messages": [
                {"role": "user", "content": "How far?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "text", "text": "Let me ride."},
                        {"type": "tool_use", "id": "a", "name": "ride", "input": {"miles": 7}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "7 miles"}]},
                        {"type": "text", "text": "Go on."},
                    ],
                },
            ],
        }
    )
    chat = request.chat
    calls = [{"id": "a", "type": "function", "function": {"name": "ride", "arguments": {"miles": 7}}}]
    assert [message.rendered for message in chat.messages] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How far?"},
        {"role": "assistant", "content": "Let me ride.", "tool_calls": calls, "reasoning_content": "Hm."},
        {"role": "tool", "content": "7 miles", "tool_call_id": "a"},
        {"role": "user", "content": "Go on."},
    ]
    assert [tool.function.name for tool in chat.tools] == ["ride", "halt"]
    assert [function.name for function in chat.called] == ["ride"]
    assert (chat.parallel_tool_calls, chat.chat_template_kwargs) == (False, {"enable_thinking": True})


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({"max_tokens": 0}, 400, "invalid_request_error", "max_tokens: "),
    ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens: "),
    ({"messages": []}, 400, "invalid_request_error", "messages: "),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, 400, "invalid_request_error", "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": "x " * 200}]}, 400, "invalid_request_error", "messages: "),
    ({"messages": [{"role": "user", "content": []}] * 10_001}, 400, "invalid_request_error", "messages: "),
    ({"messages": [{"role": "user", "content": [{}] * 10_001}]}, 400, "invalid_request_error", "messages.0.content: "),
    ({"system": [{"type": "a" * 65}]}, 400, "invalid_request_error", "system.0.type: "),
    ({"stop_sequences": ["a"] * 257}, 400, "invalid_request_error", "stop_sequences: "),
    ({"tools": [{"type": "x"}] * 513}, 400, "invalid_request_error", "tools: "),
    ({"stop_sequences": [""]}, 400, "invalid_request_error", "stop_sequences.0: "),
    ({"tools": [{"name": "a b", "input_schema": {}}]}, 400, "invalid_request_error", "tools.0.name: "),
    ({"tool_choice": {"type": "any"}}, 400, "invalid_request_error", "tool_choice: "),
    ({"output_config": {"format": {"type": "x"}}}, 400, "invalid_request_error", "output_config.format.type: "),
    ({"model": "other"}, 404, "not_found_error", "model: "),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "kind", "message"), BAD, ids=lambda value: str(value)[:40])
async def test_errors(said: Gateway, fields: dict[str, Any], status: int, kind: str, message: str) -> None:
    """Claim: an error has Anthropic's body, and names the field."""
    for path in (PATH, COUNT) if "max_tokens" not in fields else (PATH,):
        response = await ask(said, path=path, **fields)
        if path == COUNT and response.status_code == 200:  # of a prompt that is too long, too
            assert response.json()["input_tokens"] > said.decoder.target.max_length
            continue
        body = response.json()
        assert (response.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
        assert body["error"]["message"].startswith(message)
        assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_an_error_in_a_stream(said: Gateway) -> None:
    """Claim: it is an event of Anthropic's form."""
    said.play("the horse rides ahead", 1)
    said.decoder.script = [*list(said.decoder.script)[:2], TargetUnavailableError("gone")]
    last = events(await ask(said, stream=True))[-1]
    assert (last["type"], last["error"]) == ("error", {"type": "overloaded_error", "message": "gone"})


async def test_names_and_key(said: Gateway) -> None:
    """Claim: a model has several names, or any; its key comes as x-api-key, and a wrong one is Anthropic's error."""
    said.play("so")
    for name in (MODEL, "claude"):
        assert (await ask(said, model=name)).json()["model"] == name
    async with httpx.AsyncClient(base_url=said.url) as http:
        listed = (await http.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
    assert [(model["id"], model["type"]) for model in listed["data"]] == [(MODEL, "model"), ("claude", "model")]
    assert (listed["models"], listed["has_more"], listed["last_id"]) == ([], False, "claude")
    async with serve(said.tokenizer, said.decoder, any_model_name=True, api_key=SecretStr("key")) as keyed:
        refused = await ask(keyed, model="claude-sonnet")
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        headers = {"x-api-key": "key", "anthropic-version": "2023-06-01", "anthropic-beta": "some-2025-01-01"}
        async with httpx.AsyncClient(base_url=keyed.url, headers=headers) as http:
            body = {"model": "claude-sonnet", "max_tokens": 5, "messages": ASK}
            assert (await http.post(PATH, json=body)).status_code == 200
