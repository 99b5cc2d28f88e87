"""The OpenAI API over a real socket, with the client that users have, in front of a scripted decoder."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import httpx
import openai
import pytest
import pytest_asyncio
import structlog
import tiny_tokenizer
import uvicorn
from starlette.types import Message

from gateway.app import create_app
from gateway.decoder import Decoder, FinishReason, Round
from gateway.settings import GatewaySettings
from gateway.sse import EventStream
from gateway.target_client import TargetUnavailableError
from gateway.tokenizer import ChatTokenizer
from shared.errors import DrainingError, InvalidFieldError, NoFreeSlotError
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams
from shared.seeds import choice_seed

MODEL, CONTEXT = "tiny", 120
TEXT = "the horse rides ahead"
CHAT: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@dataclass
class ScriptedDecoder:
    """Stands where the Decoder stands, and plays a script of rounds and errors in every session."""

    script: Iterable[Round | Exception] = ()
    pause_seconds: float = 0
    calls: list[tuple[list[int], SamplingParams, int, int]] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0
    num_rounds: int = 0
    target: pb.ModelInfo = field(
        default_factory=lambda: pb.ModelInfo(vocab_size=320, max_length=CONTEXT, num_slots=2, max_draft_tokens=8)
    )
    max_draft_tokens: int = 8

    async def decode(
        self, prompt_ids: Sequence[int], params: SamplingParams, max_tokens: int, k: int
    ) -> AsyncGenerator[Round]:
        """Play the script."""
        self.calls.append((list(prompt_ids), params, max_tokens, k))
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            for step in self.script:
                await asyncio.sleep(self.pause_seconds)
                if isinstance(step, Exception):
                    raise step
                self.num_rounds += 1
                yield step
        finally:
            self.num_open -= 1


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    url: str
    decoder: ScriptedDecoder
    tokenizer: ChatTokenizer

    def play(self, text: str, size: int = 3, finish: FinishReason | None = "stop") -> None:
        """Script this text, so many tokens a round of which one was not drafted, and a stop token after it."""
        token_ids = [*self.tokenizer.encode(text), *([2] if finish == "stop" else [])]
        parts = [token_ids[start : start + size] for start in range(0, len(token_ids), size)]
        rounds = [Round(part, size, len(part) - 1, None, 5.0, 3.0) for part in parts]
        last = rounds.pop()
        self.decoder.script = [*rounds, Round(last.token_ids, 0, 0, finish, 5.0, 3.0)]

    async def post(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        """Post a request, a short chat unless the fields say otherwise."""
        body = {"model": MODEL} | ({"messages": CHAT} if "chat" in path else {"prompt": "hi"}) | fields
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.post(path, json=body)

    async def until_idle(self) -> None:
        """Wait until no session is open."""
        async with asyncio.timeout(5):
            while self.decoder.num_open:  # noqa: ASYNC110  # a counter, not an event
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """Return a tiny tokenizer."""
    return ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer"))))


@pytest_asyncio.fixture(scope="module")
async def server(tokenizer: ChatTokenizer) -> AsyncIterator[Gateway]:
    """Run uvicorn on a free port."""
    decoder = ScriptedDecoder()
    settings = SimpleNamespace(model_name=MODEL, default_k=4)
    app = create_app(cast("Decoder", decoder), tokenizer, cast("GatewaySettings", settings))
    listener = socket.create_server(("127.0.0.1", 0))  # connections wait in it until uvicorn is there
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
    serving = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
    yield Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", decoder, tokenizer)
    uvicorn_server.should_exit = True
    await serving


@pytest_asyncio.fixture
async def gateway(server: Gateway) -> AsyncIterator[Gateway]:
    """Return the gateway, its decoder as new, and check that no test leaves a session open."""
    vars(server.decoder).update(vars(ScriptedDecoder()))
    server.play(TEXT)
    yield server
    await server.until_idle()


@pytest_asyncio.fixture
async def client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return OpenAI's own client."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as openai_client:
        yield openai_client


def events(response: httpx.Response) -> list[Any]:
    """Return the events of a stream; `[DONE]` stays a string."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error of a response, which must be of OpenAI's form."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return cast("dict[str, Any]", error)


async def test_chat(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Claim: the async client reads a chat: text, finish reason, usage with the stop token, seed, model and id."""
    reply = await client.chat.completions.create(model=MODEL, messages=cast("Any", CHAT), seed=7)
    assert (reply.choices[0].message.content, reply.choices[0].message.role) == (TEXT, "assistant")
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.id[:9], reply.object, reply.model) == ("chatcmpl-", "chat.completion", MODEL)
    assert reply.usage is not None
    (prompt_ids, params, max_tokens, k), *_ = gateway.decoder.calls
    assert reply.usage.prompt_tokens == len(prompt_ids)
    assert reply.usage.completion_tokens == len(gateway.tokenizer.encode(TEXT)) + 1
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert (params, k) == (SamplingParams(seed=7, stop_token_ids=frozenset({0, 2})), 4)
    assert max_tokens == CONTEXT - len(prompt_ids)
    assert (reply.model_extra or {})["seed"] == 7


async def test_chat_stream(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Claim: a streamed chat begins with the role, has a chunk a round, ends with a finish reason, then usage."""
    stream = await client.chat.completions.create(
        model=MODEL, messages=cast("Any", CHAT), stream=True, stream_options={"include_usage": True}
    )
    first, *middle, finish, usage = [chunk async for chunk in stream]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == TEXT
    assert len(middle) == gateway.decoder.num_rounds
    assert (finish.choices[0].delta.content, finish.choices[0].finish_reason) == (None, "stop")
    assert all(chunk.usage is None and chunk.id == first.id for chunk in (first, *middle, finish))
    assert usage.usage is not None
    assert (usage.choices, usage.usage.completion_tokens) == ([], len(gateway.tokenizer.encode(TEXT)) + 1)
    assert isinstance((first.model_extra or {})["seed"], int)


async def test_sync_client(gateway: Gateway) -> None:
    """Claim: the sync client reads chats and completions, streamed and not."""

    def talk() -> list[str | None]:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            messages = cast("Any", CHAT)
            chat = client.chat.completions.create(model=MODEL, messages=messages)
            chunks = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            completion = client.completions.create(model=MODEL, prompt="hi")
            parts = client.completions.create(model=MODEL, prompt="hi", stream=True)
            texts = "".join(part.choices[0].text for part in parts)
            return [chat.choices[0].message.content, streamed, completion.choices[0].text, texts]

    assert await asyncio.to_thread(talk) == [TEXT] * 4


async def test_completion(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Claim: a completion takes text or ids, encodes text without a template, and is 16 tokens long by default."""
    token_ids = gateway.tokenizer.encode("the horse")
    for prompt in ("the horse", token_ids):
        reply = await client.completions.create(model=MODEL, prompt=cast("Any", prompt))
        assert (reply.choices[0].text, reply.object, reply.id[:5]) == (TEXT, "text_completion", "cmpl-")
    assert [(ids, max_tokens) for ids, _, max_tokens, _ in gateway.decoder.calls] == [(token_ids, 16)] * 2


async def test_several_prompts(gateway: Gateway) -> None:
    """Claim: each prompt of a list has n choices, in order, seeded as if the prompt had come alone."""
    reply = (await gateway.post("/v1/completions", prompt=["hi", "the horse"], n=2, seed=3, max_tokens=5)).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    prompts = [gateway.tokenizer.encode("hi"), gateway.tokenizer.encode("the horse")]
    calls = [(ids, params.seed) for ids, params, *_ in gateway.decoder.calls]
    assert sorted(calls) == sorted((ids, choice_seed(3, index)) for ids in prompts for index in (0, 1))
    assert reply["usage"]["prompt_tokens"] == sum(map(len, prompts))


async def test_choices_run_concurrently_within_the_slots(gateway: Gateway) -> None:
    """Claim: n choices run at once, never more than the target has slots, and all chunks say which they belong to."""
    gateway.decoder.pause_seconds = 0.002
    chunks = events(await gateway.post(n=5, stream=True))
    assert gateway.decoder.most_open == gateway.decoder.target.num_slots
    texts = [""] * 5
    for chunk in chunks[:-1]:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["delta"].get("content", "")
    assert (texts, chunks[-1]) == ([TEXT] * 5, "[DONE]")


async def test_no_seed_draws_one(gateway: Gateway) -> None:
    """Claim: without a seed the gateway draws one, uses it, reports it, and draws another the next time."""
    reported = [(await gateway.post()).json()["seed"] for _ in range(2)]
    assert [params.seed for _, params, *_ in gateway.decoder.calls] == reported
    assert reported[0] != reported[1]


async def test_fields_reach_the_decoder(gateway: Gateway) -> None:
    """Claim: sampling, the limit (the newer name wins), -1 for all of top_k, and k arrive; null is absent."""
    fields: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": -1,
        "seed": -1,
        "max_tokens": 9,
        "max_completion_tokens": 8,
    }
    assert (await gateway.post(**fields, speculative={"k": 8}, stop=None, n=None, user="x")).status_code == 200
    _, params, max_tokens, k = gateway.decoder.calls[0]
    assert params == SamplingParams(0, 0.5, 0, -1, frozenset({0, 2}))
    assert (max_tokens, k) == (8, 8)
    await gateway.post(speculative={"enabled": False, "k": 8}, top_k=5)
    assert (gateway.decoder.calls[1][3], gateway.decoder.calls[1][1].top_k) == (0, 5)


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("stream", [False, True])
async def test_stop_string(gateway: Gateway, size: int, stream: bool) -> None:  # noqa: FBT001
    """Claim: a stop string, wherever the rounds split it, ends the reply before it and the session at once.

    Usage counts up to the token that completed it, whatever the size of the rounds.
    """
    gateway.play("the horse rides ahead of the coach and follows", size)
    rounds = list(cast("Sequence[Round]", gateway.decoder.script))
    response = await gateway.post(stop=["zzz", "s ah"], stream=stream, stream_options={"include_usage": True})
    if stream:
        chunks = events(response)[:-1]
        text = "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])
        reason, usage = chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["usage"]
    else:
        choice, usage = response.json()["choices"][0], response.json()["usage"]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert (text, reason) == ("the horse ride", "stop")
    token_ids = gateway.tokenizer.encode("the horse rides ahead of the coach and follows")
    needed = next(n for n in itertools.count(1) if "s ah" in gateway.tokenizer._tokenizer.decode(token_ids[:n]))
    assert usage["completion_tokens"] == needed
    assert gateway.decoder.num_rounds == min(-(-needed // size), len(rounds))
    assert gateway.decoder.num_open == 0


async def test_held_back_text_comes_at_the_end(gateway: Gateway) -> None:
    """Claim: text that only looked like the beginning of a stop string is not lost."""
    reply = (await gateway.post(stop="ahead of us")).json()
    assert reply["choices"][0]["message"]["content"] == TEXT


async def test_cut_in_the_middle_of_a_character(gateway: Gateway) -> None:
    """Claim: a reply that max_tokens cuts within a character ends with U+FFFD and the finish reason length."""
    token_ids = gateway.tokenizer.encode("a🐎")[:-1]
    gateway.decoder.script = [Round(token_ids, 0, 0, "length", 1.0, 1.0)]
    reply = (await gateway.post(max_tokens=len(token_ids))).json()
    assert (reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]) == ("a\ufffd", "length")


@pytest.mark.parametrize("stream", [False, True])
async def test_metrics(gateway: Gateway, stream: bool) -> None:  # noqa: FBT001
    """Claim: metrics count rounds that had draft tokens and their acceptance, and come when asked for."""
    response = await gateway.post(speculative={"metrics": True}, stream=stream)
    body = events(response)[-2] if stream else response.json()
    rounds = list(cast("Sequence[Round]", gateway.decoder.script))
    drafts = [round_ for round_ in rounds if round_.num_drafted]
    drafted, accepted = 3 * len(drafts), 2 * len(drafts)
    assert len(drafts) == len(rounds) - 1
    assert body["metrics"]["speculative_decoding"] == {
        "num_drafts": len(drafts),
        "num_draft_tokens": drafted,
        "num_accepted_tokens": accepted,
        "acceptance_rate": accepted / drafted,
        "mean_acceptance_length": 3.0,
        "round_overhead_p50_ms": 2.0,
    }
    assert "metrics" not in (await gateway.post()).json()


async def test_models_and_health(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Claim: the one model is listed and described, another is not found, and health is ok."""
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("org/other")
    assert caught.value.code == "model_not_found"
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        health = await http.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"stream": "yes"}, "stream"),
    ({"speculative": {"k": 0}}, "speculative.k"),
    ({"speculative": {"k": 9}}, "speculative.k"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"logprobs": True}, "logprobs"),
    ({"logit_bias": {"1": 1}}, "logit_bias"),
    ({"presence_penalty": 0.1}, "presence_penalty"),
    ({"frequency_penalty": 0.1}, "frequency_penalty"),
    ({"best_of": 2}, "best_of"),
    ({"echo": True}, "echo"),
    ({"suffix": "x"}, "suffix"),
    ({"min_p": 0.1}, "min_p"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS, ids=lambda value: json.dumps(value)[:50])
async def test_bad_field_is_named(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    """Claim: a wrong or unsupported value is a 400 that names the field, in `param` and in the message."""
    response = await gateway.post(**fields)
    error = error_of(response)
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(f"{param}: ")
    assert gateway.decoder.calls == []


async def test_no_ops_are_taken(gateway: Gateway) -> None:
    """Claim: a field that is not supported may be sent with the value that asks for nothing."""
    no_ops: dict[str, Any] = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logprobs": False,
    }
    numbers: dict[str, Any] = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "best_of": 1}
    assert (await gateway.post(**no_ops, **numbers)).status_code == 200


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x " * CONTEXT}]}, "messages"),
        ("/v1/completions", {"prompt": [5] * CONTEXT}, "prompt"),
        ("/v1/completions", {"prompt": [5] * (CONTEXT - 1), "max_tokens": 2}, "max_tokens"),
        ("/v1/chat/completions", {"max_completion_tokens": CONTEXT}, "max_completion_tokens"),
    ],
)
async def test_context_length(gateway: Gateway, path: str, fields: dict[str, Any], param: str) -> None:
    """Claim: what does not fit the context is a 400 that names what is too long, with OpenAI's code."""
    response = await gateway.post(path, **fields)
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", param)


async def test_a_full_context_is_served(gateway: Gateway) -> None:
    """Claim: prompt and reply may fill the context to the last token, and the default gives way."""
    for fields in ({"max_tokens": 1}, {}):
        assert (await gateway.post("/v1/completions", prompt=[5] * (CONTEXT - 1), **fields)).status_code == 200
    assert [call[2] for call in gateway.decoder.calls] == [1, 1]


@pytest.mark.parametrize("prompt", ["", [], [[]], [320], [-1], [1, "a"], 5, ["a", 1]])
async def test_bad_prompt(gateway: Gateway, prompt: Any) -> None:
    """Claim: a prompt without tokens, of mixed kinds or beyond the vocabulary is a 400 that names the prompt."""
    response = await gateway.post("/v1/completions", prompt=prompt)
    assert response.status_code == 400
    assert error_of(response)["param"].split(".")[0] == "prompt"


async def test_bad_requests_have_openai_bodies(gateway: Gateway) -> None:
    """Claim: bad JSON, no JSON, an unknown model, route and method all have OpenAI errors, and a request id."""
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        path, headers = "/v1/chat/completions", {"Content-Type": "application/json"}
        responses = [
            await http.post(path, content=b'{"model": ', headers=headers),
            await http.post(path, content=b"\xff\xfe", headers=headers),
            await http.post(path, content=b"[]", headers=headers),
            await http.post(path, content=b""),
            await http.get("/v1/nothing"),
            await http.get(path),
            await http.post(path, json={"model": "other", "messages": CHAT}),
        ]
    assert [response.status_code for response in responses] == [400, 400, 400, 400, 404, 405, 404]
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
async def test_error_before_the_first_token(gateway: Gateway, error: Exception, status: int, kind: str) -> None:
    """Claim: an error before the first token is an HTTP status even for a stream; a bug is logged and not told."""
    gateway.decoder.script = [error]
    for stream in (True, False):
        with structlog.testing.capture_logs() as logged:
            response = await gateway.post(stream=stream)
        assert (response.status_code, error_of(response)["type"]) == (status, kind)
        assert response.headers.get("Retry-After") == ("2" if status == 429 else None)
        assert response.headers["x-request-id"]
        assert "secret" not in response.text
        assert [line.get("exc_info") for line in logged] == ([error] if status == 500 else [])


async def test_error_within_a_stream(gateway: Gateway) -> None:
    """Claim: an error after the first token is one last event in place of [DONE]; without streaming, a status."""
    gateway.decoder.script = [*cast("Sequence[Round]", gateway.decoder.script)[:1], TargetUnavailableError("gone")]
    *chunks, last = events(await gateway.post(stream=True))
    assert chunks[1]["choices"][0]["delta"]["content"]
    assert last["error"]["type"] == "service_unavailable"
    assert (await gateway.post()).status_code == 503


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("stream", [False, True])
async def test_client_gone(gateway: Gateway, n: int, stream: bool) -> None:  # noqa: FBT001
    """Claim: when the client goes away in the middle of a reply, every session of it is closed at once."""
    gateway.decoder.script = itertools.repeat(Round([5], 0, 0, None, 1.0, 1.0))
    gateway.decoder.pause_seconds = 0.001
    body = {"model": MODEL, "messages": CHAT, "stream": stream, "n": n}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=0.2) as http:
        if stream:
            async with http.stream("POST", "/v1/chat/completions", json=body) as response:
                await anext(response.aiter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/chat/completions", json=body)
    await gateway.until_idle()
    assert len(gateway.decoder.calls) == min(n, gateway.decoder.target.num_slots)


@pytest.mark.parametrize("stream", [False, True])
async def test_client_gone_before_the_first_token(gateway: Gateway, stream: bool) -> None:  # noqa: FBT001
    """Claim: a client who does not wait for the first token leaves no session behind."""
    gateway.decoder.pause_seconds = 60
    async with httpx.AsyncClient(base_url=gateway.url, timeout=0.2) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/v1/chat/completions", json={"model": MODEL, "messages": CHAT, "stream": stream})
    assert len(gateway.decoder.calls) == 1
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
    await EventStream(await anext(rest), rest)({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    assert closed.is_set()
