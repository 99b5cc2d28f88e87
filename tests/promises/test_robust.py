"""Every request that once hurt a service or another request: it gets one clear answer, and nobody else notices.

docs/robustness.md lists them. Each is sent while others' streams run, which must keep their text and their pace.
"""

import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
import watched_stack
from vital_signs import Seen
from watched_stack import Stack, watched

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
TIMED = bool(os.environ.get("FUZZ_SEED"))  # other tests run beside it in `make test`

stack, usual = watched_stack.stack, watched_stack.usual  # pytest looks for fixtures among a module's names


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def others(stack: Stack, usual: Seen) -> AsyncIterator[None]:
    """Watch the services and other streams throughout all cases."""
    async with watched(stack, usual, timed=TIMED):
        yield


@dataclass(frozen=True)
class Case:
    """A request, and what it must be answered with."""

    name: str
    path: str
    body: Callable[[], bytes]
    status: int
    says: str = ""
    """What the error's message or code contains."""


def case(name: str, path: str, status: int, says: str = "", **fields: Any) -> Case:
    """Return the case of a JSON body with these fields."""
    return Case(name, path, lambda: json.dumps({"model": "toy", "max_tokens": 8} | fields).encode(), status, says)


def chat(name: str, status: int, says: str = "", content: Any = "hi", **fields: Any) -> Case:
    """Return the case of a chat with one message."""
    return case(name, CHAT, status, says, messages=[{"role": "user", "content": content}], **fields)


def nested(levels: int) -> Any:
    """Return a schema of objects in objects."""
    inner: Any = {"type": "string"}
    for _ in range(levels):
        inner = {"type": "object", "properties": {"a": inner}}
    return inner


def chained_refs(number: int) -> Any:
    """Return a schema whose definitions refer to each other in a chain."""
    links: Any = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(number)}
    return {"$ref": "#/$defs/d0", "$defs": links | {f"d{number}": {"type": "integer"}}}


def lark_chain(number: int) -> str:
    """Return a grammar whose rules refer to each other in a chain."""
    rules = "\n".join(f"r{i}: r{i + 1}" for i in range(number))
    return f'start: r0\n{rules}\nr{number}: "x"'


def choices(number: int) -> list[str]:
    """Return this many texts of which a reply may be one."""
    return [f"choice {i:05}" for i in range(number)]


def schema_format(schema: Any) -> Any:
    """Return a response format of this schema."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def tool(parameters: Any, **function: Any) -> list[Any]:
    """Return a list of one tool."""
    return [{"type": "function", "function": {"name": "f", "parameters": parameters} | function}]


HALF = "\ud83d"  # a half of an emoji
DIGITS = '{"model": "toy", "prompt": "x", "max_tokens": %s}'
KWARGS = ("tokenize", "chat_template", "tools", "add_generation_prompt", "conversation", "self", "messages", "padding")
CASES = [
    case("temperature of 1e-40", COMPLETIONS, 200, prompt="x", temperature=1e-40),
    case("repetition penalty of 1e-40", COMPLETIONS, 200, prompt="x", repetition_penalty=1e-40),
    case("bias of 3e38", COMPLETIONS, 400, "logit_bias", prompt="x", logit_bias={"70": 3e38}),
    chat("2,000 chained references", 200, response_format=schema_format(chained_refs(2000))),
    chat("20,000 chained references", 400, "response_format", response_format=schema_format(chained_refs(20_000))),
    case("4,000 chained rules", COMPLETIONS, 200, prompt="x", guided_grammar=lark_chain(4000)),
    case("40,000 chained rules", COMPLETIONS, 400, "guided_grammar", prompt="x", guided_grammar=lark_chain(40_000)),
    case("50,000 groups in a regex", COMPLETIONS, 400, "guided_regex", prompt="x",
         guided_regex="(" * 50_000 + "a" + ")" * 50_000),
    case("a regex of many states", COMPLETIONS, 200, prompt="x", guided_regex="((a{1,500}){1,500}){1,500}b"),
    case("prompt of 8 MB", COMPLETIONS, 400, "context_length_exceeded", prompt="word " * 1_600_000),
    chat("message of 8 MB", 400, "context_length_exceeded", content="word " * 1_600_000),
    case("one word of 8 MB", COMPLETIONS, 400, "context_length_exceeded", prompt="a" * 8_000_000),
    Case("body of 20 MB", COMPLETIONS, lambda: b'{"prompt": "' + b"a" * 20_000_000 + b'"}', 413, "bytes"),
    case("700,000 prompts that are objects", COMPLETIONS, 400, prompt=[{}] * 700_000),
    case("40,000 prompts that are objects", COMPLETIONS, 400, "prompt", prompt=[{}] * 40_000),
    case("20,000 prompts of 128 choices", COMPLETIONS, 400, prompt=["a"] * 20_000, n=128),
    chat("prediction of repeated words", 200, prediction={"type": "content", "content": "a " * 120}),
    chat("half an emoji in a message", 400, content=f"hi {HALF}"),
    chat("half an emoji in a text part", 400, content=[{"type": "text", "text": HALF}]),
    chat("half an emoji in a tool", 400, tools=tool({}, description=HALF)),
    case("half an emoji in a prompt", COMPLETIONS, 400, prompt=HALF),
    case("half an emoji in a list of prompts", COMPLETIONS, 400, prompt=["a", HALF]),
    chat("half an emoji in a prediction", 400, prediction={"type": "content", "content": HALF}),
    case("half an emoji in an input", RESPONSES, 400, input=HALF),
    case("half an emoji in metadata", RESPONSES, 400, input="hi", metadata={"a": HALF}),
    case("half an emoji in a key", RESPONSES, 400, input="hi", metadata={HALF: "a"}),
    case("half an emoji to tokenize", "/tokenize", 400, prompt=HALF),
    case("NaN in a tool's schema", RESPONSES, 400, input="hi",
         tools=[{"type": "function", "name": "f", "parameters": {"maximum": float("nan")}}]),
    chat("400 levels in a tool", 400, tools=tool(nested(400))),
    chat("400 levels for the template", 400, chat_template_kwargs={"x": nested(400)}),
    case("400 levels in a response's tool", RESPONSES, 400, input="x",
         tools=[{"type": "function", "name": "f", "parameters": nested(400)}]),
    Case("100,000 brackets", COMPLETIONS, lambda: b"[" * 100_000, 400),
    Case("a number of 5,000 digits", COMPLETIONS, (DIGITS % ("9" * 5000)).encode, 400),
    Case("a number beyond floats", COMPLETIONS, (DIGITS % "1e400").encode, 400),
    *(chat(f"template option {name}", 400, "chat_template_kwargs", chat_template_kwargs={name: True})
      for name in KWARGS),
    case("20,000 choices of text", COMPLETIONS, 200, prompt="x", guided_choice=choices(20_000)),
    case("60,000 choices of text", COMPLETIONS, 400, "guided_choice", prompt="x", guided_choice=choices(60_000)),
    case("grammar with a long error", COMPLETIONS, 400, "guided_grammar", prompt="x",
         guided_grammar="start: " + "§" * 20_000),
]  # fmt: skip


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_one_clear_answer(stack: Stack, case: Case) -> None:
    """The request gets this status and an error in OpenAI's form."""
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as http:
        answer = await http.post(case.path, content=case.body(), headers={"content-type": "application/json"})
    assert answer.status_code == case.status, answer.text[:2000]
    if case.status != 200:
        error = answer.json()["error"]
        assert len(error["message"]) < 2000
        assert case.says in f"{error['message']} {error['code']} {error['param']}"
