"""Bodies made to hurt: each is refused, while the gateway answers others and a stream beside it keeps its text."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlparse

CHATS, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
PATIENCE_SECONDS = 1.0  # several times what it takes beside other tests; without bounds it was up to a minute
MEGABYTES = 15 * 10**6


def chat(**fields: Any) -> dict[str, Any]:
    """Return a chat."""
    return {"model": "toy", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2} | fields


def prompt(text: object, **fields: Any) -> dict[str, Any]:
    """Return a completion."""
    return {"model": "toy", "prompt": text, "max_tokens": 2} | fields


def calls(arguments: str) -> dict[str, Any]:
    """Return a chat in which a tool was called."""
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    return chat(messages=[{"role": "user", "content": "hi"}, called])


def tool(**fields: Any) -> list[dict[str, Any]]:
    """Return a tool."""
    return [{"type": "function", "function": {"name": "f"} | fields}]


def many(number: int) -> Iterator[tuple[str, int]]:
    """Yield so many entries of an object."""
    return ((f"{index}a", index) for index in range(number))


def nested(levels: int) -> Any:
    """Return a value of so many levels."""
    return [nested(levels - 1)] if levels else 1


# Each with the field that its error names. They are made when they are needed: together they are large.
BODIES: dict[str, tuple[str, str | None, Callable[[], dict[str, Any]]]] = {
    "a long prompt": (COMPLETIONS, "prompt", lambda: prompt("word " * (MEGABYTES // 5))),
    "a long word": (COMPLETIONS, "prompt", lambda: prompt("a" * MEGABYTES)),
    "many line ends": (COMPLETIONS, "prompt", lambda: prompt("\n" * (MEGABYTES // 2))),
    "a long message": (
        CHATS,
        "messages",
        lambda: chat(messages=[{"role": "user", "content": "w " * (MEGABYTES // 2)}]),
    ),
    "a long input": (RESPONSES, "input", lambda: {"model": "toy", "input": "w " * (MEGABYTES // 2)}),
    "long arguments": (CHATS, "messages", lambda: calls(json.dumps({"a": "w " * (MEGABYTES // 2)}))),
    "a long description": (CHATS, "messages", lambda: chat(tools=tool(description="w " * (MEGABYTES // 2)))),
    "a long prediction": (
        CHATS,
        "prediction",
        lambda: chat(prediction={"type": "content", "content": "w " * (MEGABYTES // 2)}),
    ),
    "a long text to tokenize": ("/tokenize", "prompt", lambda: {"prompt": "w " * (MEGABYTES // 2)}),
    "a long schema": (COMPLETIONS, "guided_json", lambda: prompt("hi", guided_json={"title": "a" * MEGABYTES})),
    "a schema as long text": (
        COMPLETIONS,
        "guided_json",
        lambda: prompt("hi", guided_json=json.dumps("a" * MEGABYTES)),
    ),
    "a long choice": (COMPLETIONS, "guided_choice", lambda: prompt("hi", guided_choice=["a" * MEGABYTES])),
    "a long regex": (COMPLETIONS, "guided_regex", lambda: prompt("hi", guided_regex="a" * MEGABYTES)),
    "a long stop string": (COMPLETIONS, "stop", lambda: prompt("hi", stop="a" * MEGABYTES)),
    "a long name": (COMPLETIONS, "model", lambda: prompt("hi") | {"model": "a" * MEGABYTES}),
    "many prompts and choices": (COMPLETIONS, "prompt", lambda: prompt(["a"] * 20_000, n=128)),
    "wrong prompts": (COMPLETIONS, "prompt.0", lambda: prompt([{}] * 45_000)),
    "wrong lists of tokens": (COMPLETIONS, "prompt.0.0", lambda: prompt([[{}]] * 30_000)),
    "endless tokens": (COMPLETIONS, "prompt", lambda: prompt([1] * 99_000)),
    "wrong messages": (CHATS, "messages.0.role", lambda: chat(messages=[{}] * 9_999)),
    "many messages": (CHATS, "messages", lambda: chat(messages=[{"role": "user", "content": ""}] * 9_999)),
    "too many messages": (CHATS, "messages", lambda: chat(messages=[{"role": "user", "content": ""}] * 30_000)),
    "wrong parts": (
        CHATS,
        "messages.0.content.0.type",
        lambda: chat(messages=[{"role": "user", "content": [{}] * 9_999}]),
    ),
    "many tools": (CHATS, "tools", lambda: chat(tools=tool() * 513)),
    "wrong items": (RESPONSES, "input.0.role", lambda: {"model": "toy", "input": [{}] * 9_999}),
    "wrong metadata": (RESPONSES, "metadata", lambda: {"model": "toy", "input": "hi", "metadata": dict(many(45_000))}),
    "wrong biases": (COMPLETIONS, "logit_bias.0a", lambda: prompt("hi", logit_bias=dict(many(4096)))),
    "many biases": (COMPLETIONS, "logit_bias", lambda: prompt("hi", logit_bias=dict(many(45_000)))),
    "wrong stop tokens": (COMPLETIONS, "stop_token_ids.0", lambda: prompt("hi", stop_token_ids=[{}] * 4096)),
    "wrong tokens": ("/detokenize", "tokens.0", lambda: {"tokens": [{}] * 45_000}),
    "a body of values": (COMPLETIONS, None, lambda: prompt([{}] * 700_000)),
    "a deep schema as text": (COMPLETIONS, "guided_json", lambda: prompt("hi", guided_json="[" * 100_000)),
    "deep options": (CHATS, "chat_template_kwargs", lambda: chat(chat_template_kwargs={"a": nested(400)})),
    "a deep tool": (CHATS, "tools", lambda: chat(tools=tool(parameters={"a": nested(400)}))),
}


def post(url: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Return the status and the body of the answer."""
    with closing(http.client.HTTPConnection(urlparse(url).netloc, timeout=60)) as connection:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


@contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[None]:
    """Do this beside the block."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_hostile_bodies(toy_url: str) -> None:
    """Each is a 400 that names the field and is short; meanwhile /health answers, and a stream keeps its text."""
    over, waits, replies = threading.Event(), [0.0], []
    told = chat(max_tokens=200, ignore_eos=True, seed=3, temperature=1, stream=True)

    def probe() -> None:
        with closing(http.client.HTTPConnection(urlparse(toy_url).netloc, timeout=60)) as connection:
            while not over.wait(0.01):
                began = time.monotonic()
                connection.request("GET", "/health")
                assert connection.getresponse().read()
                waits.append(time.monotonic() - began)

    def tell() -> None:
        replies.append(text_of(post(toy_url, CHATS, json.dumps(told).encode())[1]))

    tell()
    with in_thread(probe):
        try:
            for name, (path, field, make) in BODIES.items():
                body = json.dumps(make()).encode()
                status, answer = post(toy_url, path, body)
                error = json.loads(answer)["error"]
                assert (name, status, error["param"]) == (name, 404 if field == "model" else 400, field)
                assert len(answer) < 3000
            with in_thread(tell):
                while len(replies) < 2:
                    for path, _, make in (BODIES[name] for name in ("a long prompt", "many messages", "a long schema")):
                        post(toy_url, path, json.dumps(make()).encode())
        finally:
            over.set()
    assert len(waits) > 20
    assert max(waits) < PATIENCE_SECONDS
    assert replies[0] == replies[1] != ""


def text_of(stream: bytes) -> str:
    """Return the text of a streamed chat."""
    events = [line.removeprefix("data: ") for line in stream.decode().splitlines() if line.startswith("data: {")]
    choices = [json.loads(one)["choices"] for one in events]
    return "".join(choice["delta"].get("content") or "" for some in choices for choice in some)
