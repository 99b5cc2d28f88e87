"""The bodies of requests: what is refused before any work begins."""

import asyncio
import json
import os
import threading
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest
import scripted_gateway
from scripted_gateway import CHAT, CONTEXT, MODEL, TEXT, Gateway, ScriptedDecoder, error_of

from gateway.generation.choice import Choice
from gateway.generation.planner import Planner
from gateway.requests.completion import CompletionRequest
from gateway.requests.json_text import parse_json
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from gateway.web import body

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted

CHATS, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MAX_BYTES = GatewaySettings.model_fields["max_body_bytes"].default
MAX_VALUES = GatewaySettings.model_fields["max_json_values"].default + CONTEXT


async def raw(scripted: Gateway, path: str, content: bytes, content_type: str = "application/json") -> httpx.Response:
    """Post these bytes."""
    async with httpx.AsyncClient(base_url=scripted.url, timeout=30) as http:
        return await http.post(path, content=content, headers={"content-type": content_type})


async def talk(url: str, sent: bytes) -> bytes:
    """Return what the gateway answers to these bytes on a connection."""
    place = urlparse(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_a_body_too_large_is_not_read(scripted: Gateway) -> None:
    """Where its length is announced, the answer comes before any of it; otherwise when too much has come."""
    head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    announced = await talk(scripted.url, head + b"Content-Length: %d\r\n\r\n" % (MAX_BYTES + 1))
    chunk = b"%x\r\n%s\r\n" % (2**20, b" " * 2**20)
    chunked = await talk(scripted.url, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 16 + b"1\r\n \r\n")
    for answer in (announced, chunked):
        assert answer.startswith(b"HTTP/1.1 413 ")
        body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        assert body["error"]["message"] == f"The body is larger than {MAX_BYTES} bytes"


async def test_as_many_values_as_fit(scripted: Gateway) -> None:
    """A body has so many values and no more, wherever they stand; the rest of it does not matter."""
    for extra, status in ((-10, 200), (1, 400)):
        ignored = "[" + "{}," * ((MAX_VALUES + extra) // 2) + "1]"
        body = f'{{"model":"{MODEL}","prompt":"hi","unknown":{ignored}}}'
        response = await raw(scripted, COMPLETIONS, body.encode())
        assert response.status_code == status
    assert error_of(response)["message"] == f"The body is not valid: it has more than {MAX_VALUES} JSON values"


TOOL = {"type": "function", "function": {"name": "f", "description": "HALF"}}
HALVES: list[tuple[str, dict[str, Any], str]] = [
    (CHATS, {"messages": [{"role": "user", "content": "a HALF"}]}, "messages.0.content"),
    (
        CHATS,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "HALF"}]}]},
        "messages.0.content.0.text",
    ),
    (CHATS, {"messages": [{"role": "tool", "tool_call_id": "HALF", "content": ""}]}, "messages.0.tool_call_id"),
    (CHATS, {"messages": CHAT, "tools": [TOOL]}, "tools.0.function.description"),
    (CHATS, {"messages": CHAT, "prediction": {"type": "content", "content": "HALF"}}, "prediction.content"),
    (CHATS, {"messages": CHAT, "chat_template_kwargs": {"a": {"HALF": 1}}}, "chat_template_kwargs.a"),
    (CHATS, {"messages": CHAT, "guided_choice": ["a", "HALF"]}, "guided_choice.1"),
    (COMPLETIONS, {"prompt": "HALF"}, "prompt"),
    (COMPLETIONS, {"prompt": ["a", "HALF"]}, "prompt.1"),
    (COMPLETIONS, {"prompt": "a", "stop": ["HALF"]}, "stop.0"),
    (COMPLETIONS, {"prompt": "a", "logit_bias": {"HALF": 1}}, "logit_bias"),
    (COMPLETIONS, {"model": "HALF", "prompt": "a"}, "model"),
    (RESPONSES, {"input": "HALF"}, "input"),
    (RESPONSES, {"input": "a", "metadata": {"k": "HALF"}}, "metadata.k"),
    ("/tokenize", {"prompt": "HALF"}, "prompt"),
]


@pytest.mark.parametrize(("path", "fields", "param"), HALVES, ids=[f"{path} {param}" for path, _, param in HALVES])
async def test_half_a_character_is_named(scripted: Gateway, path: str, fields: dict[str, Any], param: str) -> None:
    """A lone surrogate is a 400 that names the field, wherever it stands."""
    for half in (r"\ud83d", r"\ude00", r"\ud83d\ud83d"):
        body = json.dumps({"model": MODEL} | fields).replace("HALF", half)
        response = await raw(scripted, path, body.encode())
        assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHATS, '"messages":[{"role":"user","content":"a"}],"temperature":NaN', "temperature"),
        (CHATS, '"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"a":[1e400]}', None),
        (COMPLETIONS, '"prompt":"a","temperature":-Infinity', "temperature"),
        (COMPLETIONS, '"prompt":"a","guided_json":{"maximum":1e999}', "guided_json.maximum"),
        (
            RESPONSES,
            '"input":"a","tools":[{"type":"function","name":"f","parameters":{"a":NaN}}]',
            "tools.0.parameters.a",
        ),
        (COMPLETIONS, '"prompt":"a","seed":' + "1" * 5000, "seed"),
        (COMPLETIONS, '"prompt":"a","seed":' + "1" * 4000, "seed"),
        (COMPLETIONS, '"prompt":"a","max_tokens":' + "1" * 4000, "max_tokens"),
        (COMPLETIONS, '"prompt":"a","presence_penalty":' + "1" * 4000, "presence_penalty"),
        (CHATS, '"messages":[],"tools":' + "[" * 3000, "tools"),
        (COMPLETIONS, '"prompt":"a\xff"', None),
        (COMPLETIONS, "prompt", None),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_json_cannot_say(scripted: Gateway, path: str, fields: str, param: str | None) -> None:
    """Numbers that are none or too large, depth without end, and text that is no JSON are a 400."""
    response = await raw(scripted, path, f'{{"model":"{MODEL}",{fields}}}'.encode("latin-1"))
    error = error_of(response)
    assert response.status_code == 400
    if param:
        assert error["param"] == param
    assert len(response.content) < 3000


async def test_odd_but_valid_json(scripted: Gateway) -> None:
    """NUL is a character, and of two keys the last one counts."""
    body = f'{{"model":"{MODEL}","prompt":"first","prompt":"a\\u0000b"}}'
    assert (await raw(scripted, COMPLETIONS, body.encode())).status_code == 200
    assert scripted.decoder.calls[0][0] == scripted.tokenizer.encode("a\0b")


async def test_an_error_repeats_little(scripted: Gateway) -> None:
    """However long a value or a key, its error is short."""
    long = "x" * 100_000
    for fields in (
        {"model": long},
        {"logit_bias": {long: 1}},
        {"role": long},
        {"chat_template_kwargs": {long: [1e308]}},
    ):
        response = await scripted.post(**fields)
        assert len(response.content) < 3000
    assert error_of(await scripted.post(model=long))["message"].endswith("…")


async def test_content_type(scripted: Gateway) -> None:
    """Only JSON is read, so that another site's page cannot post to a gateway on its visitor's machine."""
    body = json.dumps({"model": MODEL, "prompt": "hi"}).encode()
    for kind, status in (("application/json; charset=utf-8", 200), ("text/plain", 400), ("", 400)):
        assert (await raw(scripted, COMPLETIONS, body, kind)).status_code == status


@pytest.mark.parametrize("path", [CHATS, COMPLETIONS, RESPONSES, "/tokenize", "/detokenize"])
async def test_every_body_is_bounded_and_described(scripted: Gateway, path: str) -> None:
    """No route reads a body in another way, and the description of the API has each body's schema."""
    response = await raw(scripted, path, b"[" * (MAX_VALUES + 1))
    assert "JSON values" in error_of(response)["message"]
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        described = (await http.get("/openapi.json")).json()["paths"][path]["post"]["requestBody"]
    assert described["content"]["application/json"]["schema"]["$ref"].endswith("Request")


class Slow:
    """Planning that takes until it is let go, of prompts that say so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the planner's place."""
        self.go, self.num_begun = threading.Event(), 0
        planned = Planner.completion

        def plan(planner: Planner, request: CompletionRequest) -> list[Choice]:
            if request.prompt == "slow":
                self.num_begun += 1
                assert self.go.wait(20)
            return planned(planner, request)

        monkeypatch.setattr(Planner, "completion", plan)


NUM_THREADS = max(2, os.cpu_count() or 1)


async def test_too_many_wait(tiny: ChatTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When as much waits as may, a request is refused at once, to be tried again; what needs no thread is answered."""
    slow = Slow(monkeypatch)
    async with scripted_gateway.serve(tiny, ScriptedDecoder(), max_waiting_work=1) as gateway:
        gateway.play(TEXT)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            fields = {"model": MODEL, "prompt": "slow"}
            asked = [asyncio.create_task(http.post(COMPLETIONS, json=fields)) for _ in range(NUM_THREADS)]
            async with asyncio.timeout(20):
                while slow.num_begun < NUM_THREADS:
                    await asyncio.sleep(0.01)
            asked.append(asyncio.create_task(http.post(COMPLETIONS, json=fields)))
            await asyncio.sleep(0.1)
            refused = await http.post(COMPLETIONS, json=fields)
            assert (await http.get("/health")).status_code == 200
            slow.go.set()
            answers = await asyncio.gather(*asked)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (error_of(refused)["type"], error_of(refused)["code"]) == ("service_unavailable", "overloaded")
    assert {answer.status_code for answer in answers} == {200}


async def test_who_leaves_is_not_read(scripted: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests of clients who left while they waited are not even parsed."""
    slow = Slow(monkeypatch)
    parsed = []

    def parse(content: bytes, max_values: int) -> Any:
        parsed.append(content)
        return parse_json(content, max_values)

    monkeypatch.setattr(body, "parse_json", parse)
    fields = {"model": MODEL, "prompt": "slow"}
    async with httpx.AsyncClient(base_url=scripted.url, timeout=30) as http:
        running = [asyncio.create_task(http.post(COMPLETIONS, json=fields)) for _ in range(NUM_THREADS)]
        async with asyncio.timeout(20):
            while slow.num_begun < NUM_THREADS:
                await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(http.post(COMPLETIONS, json=fields)) for _ in range(5)]
        await asyncio.sleep(0.2)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await asyncio.sleep(0.2)
        slow.go.set()
        assert {answer.status_code for answer in await asyncio.gather(*running)} == {200}
    assert len(parsed) == NUM_THREADS


async def test_long_bodies_leave_a_thread(scripted: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many long requests are planned, a short one is answered meanwhile."""
    slow = Slow(monkeypatch)
    fields = {"model": MODEL, "prompt": "slow", "unknown": "a" * body.LONG}
    async with httpx.AsyncClient(base_url=scripted.url, timeout=30) as http:
        asked = [asyncio.create_task(http.post(COMPLETIONS, json=fields)) for _ in range(2 * NUM_THREADS)]
        async with asyncio.timeout(20):
            while slow.num_begun < NUM_THREADS - 1:
                await asyncio.sleep(0.01)
        assert (await scripted.post(COMPLETIONS)).status_code == 200
        assert slow.num_begun == NUM_THREADS - 1
        slow.go.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def test_large_bodies_do_not_hold_up_small_ones(scripted: Gateway) -> None:
    """Only so many large bodies are taken in at once; while their clients dawdle, small ones are read."""
    place = urlparse(scripted.url)
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sent = f'{head}Content-Length: {2 * body.LARGE}\r\n\r\n{{"model":"{MODEL}","prompt":"hi"'.encode()
    writers = []
    for _ in range(body.MAX_LARGE + 1):
        _, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(sent + b" " * (body.LARGE + 1))
        writers.append(writer)
    await asyncio.sleep(0.5)
    assert (await scripted.post(COMPLETIONS)).status_code == 200
    large = asyncio.create_task(scripted.post(COMPLETIONS, unknown="a" * body.LARGE))
    await asyncio.sleep(0.5)
    assert not large.done()
    for writer in writers:
        writer.close()
    assert (await large).status_code == 200
