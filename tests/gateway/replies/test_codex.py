"""The Responses API as Codex uses it: tools of all kinds, items of all kinds, and what else it sends."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest
import pytest_asyncio
import tiny_tokenizer
from scripted_gateway import MODEL, Gateway, ScriptedDecoder, serve

from gateway.requests.responses import ResponsesRequest
from gateway.text.tokenizer import ChatTokenizer

PARAMETERS = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
PATCH = {"type": "grammar", "syntax": "lark", "definition": 'start: "*** " /.+/'}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "exec", "strict": False, "parameters": PARAMETERS},
    {
        "type": "namespace",
        "name": "agents",
        "description": "Helpers.",
        "tools": [
            {"type": "function", "name": "close", "strict": False, "parameters": PARAMETERS},
            {"type": "function", "name": "exec", "strict": False, "parameters": PARAMETERS},
            {"type": "web_search"},
        ],
    },
    {"type": "custom", "name": "patch", "description": "A patch.", "format": PATCH},
    {"type": "local_shell"},
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation"},
]
TURN: dict[str, Any] = {
    "model": MODEL,
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Work."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go."}]},
    ],
    "tools": TOOLS,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k-1",
    "extra_body": {"client_metadata": {"request_kind": "turn"}, "text": {"verbosity": "low"}},
}
ASKED = {  # of Open Responses' schema, beside those that other tests look at
    "background": False,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "max_tool_calls": None,
    "prompt_cache_key": "k-1",
    "reasoning": {"effort": "medium", "summary": "auto"},
    "safety_identifier": None,
    "service_tier": "default",
}
Said = tuple[Gateway, openai.AsyncOpenAI]


@pytest_asyncio.fixture
async def said(tmp_path: Path) -> AsyncIterator[Said]:
    """Serve a decoder that plays a script, with a template that knows tools."""
    folder = tiny_tokenizer.save(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}{# <tool_call> {{ tools }} #}")
    async with (
        serve(ChatTokenizer.load(str(folder)), ScriptedDecoder()) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield gateway, client


def called(name: str, arguments: str) -> str:
    """Return a call as models write it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


async def both(client: openai.AsyncOpenAI, **fields: Any) -> tuple[dict[str, Any], list[Any]]:
    """Return the whole response, and the events of a stream, whose last one has the same items."""
    ask = TURN | fields
    whole = (await client.responses.create(**ask)).to_dict()
    events = [event async for event in await client.responses.create(**ask, stream=True)]
    last = cast("dict[str, Any]", events[-1].response.to_dict())
    fresh = {"id", "call_id"}
    assert [one | dict.fromkeys(fresh) for one in last["output"]] == [
        one | dict.fromkeys(fresh) for one in cast("Any", whole["output"])
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return cast("dict[str, Any]", whole), events


async def test_a_turn(said: Said) -> None:
    """Claim: what Codex sends is taken, and each field that the schema requires is in the reply."""
    gateway, client = said
    gateway.play("So.")
    whole, events = await both(client)
    assert {name: whole[name] for name in ASKED} == ASKED
    assert whole["completed_at"] >= whole["created_at"]
    assert events[0].response.to_dict()["completed_at"] is None


async def test_calls_of_each_kind(said: Said) -> None:
    """Claim: a call names the tool as the client does: a function, one of a namespace, or a free-text tool."""
    gateway, client = said
    arguments = '{"cmd": "ls"}'
    text = "*** a\n\t\\"
    gateway.play(
        called("exec", arguments)
        + called("close", arguments)
        + called("agents.exec", arguments)
        + called("patch", r'{"input": "*** a\n\t\\"}')
    )
    whole, events = await both(client)
    items = [(item["type"], item["name"], item.get("namespace"), item.get("arguments")) for item in whole["output"]]
    assert items == [
        ("function_call", "exec", None, arguments),
        ("function_call", "close", "agents", arguments),
        ("function_call", "exec", "agents", arguments),
        ("custom_tool_call", "patch", None, None),
    ]
    assert whole["output"][-1]["input"] == text
    kinds = [event.type.removeprefix("response.") for event in events if getattr(event, "output_index", 0) == 3]
    assert kinds[-4:] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]


async def test_a_tool_that_must_be_called_by_its_grammar(said: Said) -> None:
    """Claim: the reply conforms to the grammar of a free-text tool that is asked for, and is its input."""
    gateway, client = said
    gateway.play("*** a")
    whole, events = await both(client, tool_choice={"type": "custom", "name": "patch"})
    [item] = whole["output"]
    assert (item["type"], item["name"], item["input"], item["status"]) == (
        "custom_tool_call",
        "patch",
        "*** a",
        "completed",
    )
    grammar = gateway.decoder.calls[0][1].grammar
    assert grammar
    assert (grammar.kind, grammar.text) == ("lark", PATCH["definition"])
    assert "".join(one.delta for one in events if one.type == "response.custom_tool_call_input.delta") == "*** a"


def test_items_of_all_kinds() -> None:
    """Claim: calls of free-text tools and their answers are in the chat, and what other tools did is skipped."""
    request = ResponsesRequest.model_validate(
        {
            "model": MODEL,
            "input": [
                {"role": "user", "content": "Go."},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
                {"type": "web_search_call", "id": "ws_1", "status": "completed"},
                {"type": "custom_tool_call", "call_id": "a", "name": "patch", "input": "*** é"},
                {"type": "custom_tool_call_output", "call_id": "a", "output": "done"},
                {"type": "local_shell_call", "id": "x", "call_id": "b", "status": "completed", "action": {}},
            ],
        }
    )
    call = {"id": "a", "type": "function", "function": {"name": "patch", "arguments": {"input": "*** é"}}}
    assert [message.rendered for message in request.chat.messages] == [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "done", "tool_call_id": "a"},
    ]


@pytest.mark.parametrize("empty", ["", []])
async def test_empty_input(said: Said, empty: Any) -> None:
    """Claim: a client that asks nothing, to see who is there, gets an answer."""
    gateway, client = said
    gateway.tokenizer._chat.chat_template = "a{{ messages[-1].content }}"
    gateway.play("So.")
    assert (await client.responses.create(model=MODEL, input=empty)).output_text == "So."


def test_tools_as_the_model_is_told_of_them() -> None:
    """Claim: of tools with the same name, the one in a namespace has that before it; a text's form is told."""
    chat = ResponsesRequest.model_validate({key: TURN[key] for key in ("model", "input", "tools")}).chat
    assert [tool.function.name for tool in chat.tools] == ["exec", "close", "agents.exec", "patch"]
    assert PATCH["definition"] in (chat.tools[-1].function.description or "")
    pattern = {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "regex", "definition": "a|b"}}
    [tool] = ResponsesRequest.model_validate({"model": MODEL, "input": "", "tools": [pattern]}).chat.tools
    assert tool.function.parameters["properties"]["input"]["pattern"] == "^(?:a|b)$"
