"""What the OpenAI API answers to wrong requests and to failures, and what it does when the client goes away."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import httpx
import pytest
import scripted_gateway
import structlog
from scripted_gateway import CHAT, CONTEXT, MODEL, ROUND_TIME, Gateway, ScriptedDecoder, error_of, events, serve
from starlette.types import Message

from gateway.clients.errors import TargetUnavailableError
from gateway.requests.no_op_fields import NoOpFields, NoOpResponsesFields
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.sse import EventStream
from shared.errors import DrainingError, InvalidFieldError, NoFreeSlotError

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": ["assistant"]}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 257}, "stop"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 16.5}, "max_tokens"),
    ({"max_tokens": "16"}, "max_tokens"),
    ({"stream": "yes"}, "stream"),
    ({"speculative": {"k": 0}}, "speculative.k"),
    ({"speculative": {"k": 9}}, "speculative.k"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),  # the tiny template knows none
    ({"tool_choice": "always"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}}, "tool_choice.allowed_tools.tools"),
    ({"tool_choice": {"type": "some"}}, "tool_choice"),
    ({"tools": 5, "tool_choice": "required"}, "tools"),
    ({"logprobs": 1, "top_logprobs": 1}, "logprobs"),
    ({"n": "2", "best_of": 2}, "n"),
    ({"messages": [{"role": "system"}]}, "messages.0.content"),
    ({"response_format": {"type": "json"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "response_format.json_schema.schema"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 1}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"logit_bias": {"the": 1}}, "logit_bias.the"),
    ({"logit_bias": {"320": 1}}, "logit_bias"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"min_p": 1.1}, "min_p"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
    ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
    ({"ignore_eos": "yes"}, "ignore_eos"),
    ({"include_stop_str_in_output": 1}, "include_stop_str_in_output"),
    ({"best_of": 2}, "best_of"),
    ({"suffix": "x"}, "suffix"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS, ids=lambda value: json.dumps(value)[:50])
async def test_bad_field_is_named(scripted: Gateway, fields: dict[str, Any], param: str) -> None:
    """Claim: a wrong or unsupported value is a 400 that names the field, in `param` and in the message."""
    response = await scripted.post(**fields)
    error = error_of(response)
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")
    assert scripted.decoder.calls == []


NO_OPS: dict[str, Any] = {
    "functions": [],
    "function_call": "none",
    "modalities": ["text"],
    "audio": {},
    "web_search_options": {},
    "prompt_logprobs": 0,
    "suffix": "",
    "length_penalty": 1,
    "use_beam_search": False,
    "bad_words": [],
    "allowed_token_ids": [],
    "skip_special_tokens": True,
    "truncate_prompt_tokens": None,
    "chat_template": None,
    "add_generation_prompt": True,
    "continue_final_message": False,
}


NO_OPS_OF_RESPONSES: dict[str, Any] = {
    "previous_response_id": None,
    "conversation": None,
    "prompt": None,
    "background": False,
    "truncation": "disabled",
}


async def test_no_ops_are_taken(scripted: Gateway) -> None:
    """Claim: a field that is not supported may be sent with the value that asks for nothing, and with no other."""
    assert NO_OPS.keys() == NoOpFields.model_fields.keys()
    assert (await scripted.post(**NO_OPS)).status_code == 200
    assert NO_OPS_OF_RESPONSES.keys() == NoOpResponsesFields.model_fields.keys()
    assert (await scripted.post("/v1/responses", input="hi", **NO_OPS_OF_RESPONSES)).status_code == 200
    for field in NO_OPS_OF_RESPONSES:
        response = await scripted.post("/v1/responses", **({"prompt": None, "input": "hi"} | {field: "anything"}))
        assert (response.status_code, error_of(response)["param"]) == (400, field)
    for field in NO_OPS:
        response = await scripted.post(**{field: "anything"})
        assert (response.status_code, error_of(response)["param"]) == (400, field)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x " * CONTEXT}]}, "messages"),
        ("/v1/completions", {"prompt": [5] * CONTEXT}, "prompt"),
        ("/v1/completions", {"prompt": [5] * (CONTEXT - 1), "min_tokens": 2, "max_tokens": 2}, "min_tokens"),
        ("/v1/chat/completions", {"min_tokens": CONTEXT}, "min_tokens"),
        ("/v1/responses", {"prompt": None, "input": "x", "min_tokens": CONTEXT}, "min_tokens"),
    ],
)
async def test_context_length(scripted: Gateway, path: str, fields: dict[str, Any], param: str) -> None:
    """Claim: what does not fit the context is a 400 that names what is too long, with OpenAI's code."""
    response = await scripted.post(path, **fields)
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", param)


async def test_a_full_context_is_served(scripted: Gateway) -> None:
    """Claim: prompt and reply may fill the context to the last token, and the default gives way."""
    for fields in ({"max_tokens": 1}, {}):
        assert (await scripted.post("/v1/completions", prompt=[5] * (CONTEXT - 1), **fields)).status_code == 200
    assert [call[2] for call in scripted.decoder.calls] == [1, 1]


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"logprobs": 21}, "logprobs"), ({"max_tokens": 0}, "max_tokens"), ({"echo": 1}, "echo")],
)
async def test_bad_field_of_a_completion(scripted: Gateway, fields: dict[str, Any], param: str) -> None:
    """Claim: likewise for completions."""
    response = await scripted.post("/v1/completions", **fields)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize("prompt", ["", [], [[]], [320], [-1], [1, "a"], 5, ["a", 1]])
async def test_bad_prompt(scripted: Gateway, prompt: Any) -> None:
    """Claim: a prompt without tokens, of mixed kinds or beyond the vocabulary is a 400 that names the prompt."""
    response = await scripted.post("/v1/completions", prompt=prompt)
    assert response.status_code == 400
    assert error_of(response)["param"].split(".")[0] == "prompt"


async def test_bad_requests_have_openai_bodies(scripted: Gateway) -> None:
    """Claim: bad JSON, no JSON, an unknown model, route and method all have OpenAI errors, and a request id."""
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        path, headers = "/v1/chat/completions", {"Content-Type": "application/json"}
        responses = [
            await http.post(path, content=b'{"model": ', headers=headers),
            await http.post(path, content=b"\xff\xfe", headers=headers),
            await http.post(path, content=b"[]", headers=headers),
            await http.post(path, content=b""),
            await http.get("/v1/nothing"),
            await http.post(f"{path}/", json={"model": MODEL, "messages": CHAT}),  # no redirect to whatever Host says
            await http.get(path),
            await http.post(path, json={"model": "other", "messages": CHAT}),
        ]
    assert [response.status_code for response in responses] == [400, 400, 400, 400, 404, 404, 405, 404]
    assert {error_of(response)["type"] for response in responses} == {"invalid_request_error"}
    assert (error_of(responses[-1])["param"], error_of(responses[-1])["code"]) == ("model", "model_not_found")
    assert len({response.headers["x-request-id"] for response in responses}) == len(responses)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NoFreeSlotError("busy", 1500), 429, "rate_limit_error"),
        (DrainingError("draining"), 503, "service_unavailable"),
        (TargetUnavailableError("gone"), 503, "service_unavailable"),
        (InvalidFieldError("top_k", "too odd"), 400, "invalid_request_error"),
        (KeyError("secret"), 500, "internal_error"),
    ],
)
async def test_error_before_the_first_token(scripted: Gateway, error: Exception, status: int, kind: str) -> None:
    """Claim: an error before the first token is an HTTP status even for a stream; a bug is logged and not told."""
    scripted.decoder.script = [error]
    for stream in (True, False):
        with structlog.testing.capture_logs() as logged:
            response = await scripted.post(stream=stream)
        assert (response.status_code, error_of(response)["type"]) == (status, kind)
        assert response.headers.get("Retry-After") == ("2" if status == 429 else None)
        assert response.headers["x-request-id"]
        assert "secret" not in response.text
        assert [line.get("exc_info") for line in logged] == ([error] if status == 500 else [])


async def test_error_within_a_stream(scripted: Gateway) -> None:
    """Claim: an error after the first token is one last event in place of [DONE]; without streaming, a status."""
    scripted.decoder.script = [*cast("Sequence[Round]", scripted.decoder.script)[:1], TargetUnavailableError("gone")]
    *chunks, last = events(await scripted.post(stream=True))
    assert chunks[1]["choices"][0]["delta"]["content"]
    assert last["error"]["type"] == "service_unavailable"
    assert (await scripted.post()).status_code == 503


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("stream", [False, True])
async def test_client_gone(scripted: Gateway, n: int, stream: bool) -> None:  # noqa: FBT001
    """Claim: when the client goes away in the middle of a reply, every session of it is closed at once."""
    scripted.decoder.script = itertools.repeat(Round([5], 0, 0, None, ROUND_TIME))
    scripted.decoder.pause_seconds = 0.001
    body = {"model": MODEL, "messages": CHAT, "stream": stream, "n": n}
    async with httpx.AsyncClient(base_url=scripted.url, timeout=httpx.Timeout(10, read=10 if stream else 0.5)) as http:
        if stream:
            async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                await anext(response.aiter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/chat/completions", json=body)
    await scripted.until_idle()
    assert len(scripted.decoder.calls) == min(n, scripted.decoder.target.num_slots)


@pytest.mark.parametrize("stream", [False, True])
async def test_client_gone_before_the_first_token(scripted: Gateway, stream: bool) -> None:  # noqa: FBT001
    """Claim: a client who does not wait for the first token leaves no session behind."""
    scripted.decoder.pause_seconds = 60
    async with httpx.AsyncClient(base_url=scripted.url, timeout=httpx.Timeout(10, read=0.5)) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/v1/chat/completions", json={"model": MODEL, "messages": CHAT, "stream": stream})
    assert len(scripted.decoder.calls) == 1
    await scripted.until_idle()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pause_seconds", [0.01, 60])
async def test_a_request_that_takes_too_long(
    tiny: ChatTokenizer, path: str, *, stream: bool, pause_seconds: float
) -> None:
    """Claim: it ends with a 504, or if a stream has begun with an event that says so, and its session is closed."""
    decoder = ScriptedDecoder(itertools.repeat(Round([5], 0, 0, None, ROUND_TIME)), pause_seconds)
    async with serve(tiny, decoder, request_timeout_seconds=0.3) as gateway:
        fields: dict[str, Any] = {"prompt": None, "input": "hi"} if path == "/v1/responses" else {}
        response = await gateway.post(path, stream=stream, **fields)
        begun = stream and pause_seconds < 1
        assert response.status_code == (200 if begun else 504)
        if not begun:
            error = error_of(response)
        elif path == "/v1/responses":
            error = json.loads(response.text.rpartition("data: ")[2])
            assert error["type"] == "error"
        else:
            error = events(response)[-1]["error"]
        assert error["code"] == "request_timeout"
        await gateway.until_idle()


async def test_event_stream_closes_what_it_did_not_send() -> None:
    """Claim: a client who leaves before the first chunk is written, with the writer blocked, ends the decoding too."""
    closed = asyncio.Event()

    async def chunks() -> AsyncGenerator[dict[str, Any]]:
        try:
            while True:
                yield {}
        finally:
            closed.set()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None:
        await asyncio.Event().wait()

    rest = chunks()
    stream = EventStream(asyncio.ensure_future(anext(rest)), rest, "chunks", {})
    await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    assert closed.is_set()
