"""Anthropic's package for Python, on the Messages API."""

from typing import Any

from anthropic import Anthropic
from features import DISTANCE, MODEL, NUM_TOKENS, PARAMETERS, QUESTION, ROOM, SEED, TOOL, URL, fits, show

client = Anthropic(base_url=URL.removesuffix("/v1"), api_key="none", max_retries=0)
ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": NUM_TOKENS}
ask["extra_body"] = {"seed": SEED}
roomy = ask | {"max_tokens": ROOM}
RIDE = {"name": "ride", "description": "Rides ahead.", "input_schema": TOOL["function"]["parameters"]}


def chat() -> str:
    """Ask for a text."""
    return client.messages.create(**ask).content[0].text


def stream() -> str:
    """Ask for the same text, in pieces."""
    with client.messages.stream(**ask) as events:
        pieces = list(events.text_stream)
    assert len(pieces) > 2
    assert "".join(pieces) == chat()
    return f"{len(pieces)} pieces"


def tool() -> str:
    """Ask for a tool call, in pieces."""
    with client.messages.stream(**roomy, tools=[RIDE], tool_choice={"type": "tool", "name": "ride"}) as events:
        reply = events.get_final_message()
    (call,) = reply.content
    assert (call.type, call.name, reply.stop_reason) == ("tool_use", "ride", "tool_use")
    return fits(call.input, PARAMETERS)


def structured() -> str:
    """Ask for JSON that fits a schema."""
    form = {"format": {"type": "json_schema", "schema": DISTANCE}}
    return fits(client.messages.create(**roomy, output_config=form).content[0].text, DISTANCE)


show(chat, stream, tool, structured)
