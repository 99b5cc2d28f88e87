"""Requests such as no well-meaning client sends: valid ones, each with a few parts replaced, removed or multiplied."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from test_surface import BASE, MESSAGES, MESSAGES_TOOLS, OWN, QUIET, SCHEMAS, SHAPED

MODEL = {"model": "toy"}
ROUTES: dict[str, list[dict[str, Any]]] = {
    path: [
        MODEL | base | (value if isinstance(value, dict) and field in value else {field: value})
        for field, value in (SHAPED | QUIET | OWN[path]).items()
        if field in SCHEMAS[path].model_fields
    ]
    for path, base in BASE.items()
} | {
    "/tokenize": [MODEL | {"prompt": "What is a token?"}, MODEL | {"messages": [{"role": "user", "content": "hi"}]}],
    "/v1/messages/count_tokens": [MODEL | BASE[MESSAGES] | {"tools": MESSAGES_TOOLS}],
    "/detokenize": [MODEL | {"tokens": [70, 80, 90]}],
}
"""Valid bodies of each route: every field that docs/api.md lists."""

DEEP: Any = json.loads('{"a":' * 300 + "1" + "}" * 300)
ODD_SCHEMAS: list[Any] = [
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}},
    {"type": "string", "pattern": "(a*)*b{1000}"},
    {"type": "array", "minItems": 10**9},
    {"type": "object", "properties": {str(i): {"$ref": "#"} for i in range(50)}},
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, 1e-40, 1e-7, 1e308, -1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"), "", " ", "0", "\0", "\ud83d", "\udc00x", "\u2028", "\N{BELL}",
    "e\u0301" * 40,
    "a" * 5000, " " * 3000, "{" * 3000, "<tool_call>" * 300, "\\" * 2000, "(" * 500, "[a-z]{1000}" * 5, "toy",
    "start: start", 'start: "a" start | "b"', [], {}, [[]], [{}] * 50, [None], ["x"] * 100, [-1],
    [10**9] * 3, [[]] * 60,
    list(range(600)), {"": ""}, {"type": "x"}, {"type": "text", "text": "x"}, {str(i): i for i in range(200)},
    DEEP, *ODD_SCHEMAS,
]  # fmt: skip
KEYS = ["n", "stream", "logprobs", "stop", "tools", "prediction", "speculative", "guided_grammar",
        "guided_regex", "response_format", "chat_template_kwargs", "tokenize", "\ud83d", "",
        "x" * 1000, "logit_bias", "suffix"]  # fmt: skip

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class HostileRequest:
    """A request as it is sent."""

    method: str
    path: str
    body: bytes
    content_type: str = "application/json"


def _paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield where the parts of a body are."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _paths(part, (*at, key))


def _changed(value: Any, path: Path, change: Any) -> Any:
    """Return a body with one part replaced by what `change` makes of it."""
    if not path:
        return change(value)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _changed(value[path[0]], path[1:], change)
    return copy


def _mutate(draw: st.DrawFn, body: Any) -> Any:
    path = draw(st.sampled_from(list(_paths(body))[:200]))
    match draw(st.sampled_from(["replace", "replace", "replace", "add", "remove", "repeat", "wrap"])):
        case "replace":
            value = draw(st.sampled_from(VALUES))
            return _changed(body, path, lambda _: value)
        case "add":
            key, value = draw(st.sampled_from(KEYS)), draw(st.sampled_from(VALUES))
            return _changed(body, path, lambda part: part | {key: value} if isinstance(part, dict) else part)
        case "remove":
            number = draw(st.integers(0, 20))
            return _changed(body, path, lambda part: _without(part, number))
        case "repeat":
            times = draw(st.sampled_from([2, 30, 300]))
            return _changed(body, path, lambda part: part * times if isinstance(part, list | str) else part)
        case _:
            return _changed(body, path, lambda part: [part])


def _without(part: Any, number: int) -> Any:
    if isinstance(part, dict) and part:
        keys = list(part)
        return {key: value for key, value in part.items() if key != keys[number % len(keys)]}
    return part[:-1] if isinstance(part, list | str) else part


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """Draw the bytes of a body for this route."""
    body: Any = draw(st.sampled_from(ROUTES[path]))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        body = _mutate(draw, body)
    text = json.dumps(body).encode()
    match draw(st.integers(0, 19)):
        case 0:
            return text[: draw(st.integers(0, len(text)))]
        case 1:
            at, byte = draw(st.integers(0, len(text))), draw(st.binary(min_size=1, max_size=3))
            return text[:at] + byte + text[at + 1 :]
        case 2:
            return draw(st.binary(max_size=200))
        case _:
            return text


@st.composite
def hostile_requests(draw: st.DrawFn) -> HostileRequest:
    """Draw a request."""
    path = draw(st.sampled_from([*BASE, *BASE, *ROUTES]))
    body = draw(bodies(path))
    if draw(st.integers(0, 19)):
        return HostileRequest("POST", path, body)
    method = draw(st.sampled_from(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "POST"]))
    other = draw(
        st.sampled_from([*ROUTES, "/v1/models/x", "/v1/models/%00", "/metrics", "/ready", "/page/../x", "//", "/docs"])
    )
    content_type = draw(
        st.sampled_from(
            ["application/json", "text/plain", "multipart/form-data", "application/json; charset=utf-16", ""]
        )
    )
    return HostileRequest(method, other, body, content_type)
