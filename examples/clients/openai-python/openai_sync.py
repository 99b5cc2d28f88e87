"""OpenAI's package for Python."""

from typing import Any

from features import DISTANCE, MODEL, NUM_TOKENS, PARAMETERS, QUESTION, SEED, TOOL, URL, fits, show
from openai import OpenAI

client = OpenAI(base_url=URL, api_key="none", max_retries=0)
ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "seed": SEED}


def chat() -> str:
    """Ask for a text."""
    return client.chat.completions.create(**ask, max_tokens=NUM_TOKENS).choices[0].message.content or ""


def stream() -> str:
    """Ask for the same text, in pieces."""
    chunks = list(client.chat.completions.create(**ask, max_tokens=NUM_TOKENS, stream=True))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == chat()
    return f"{len(pieces)} pieces"


def tool() -> str:
    """Ask for a tool call."""
    choice = {"type": "function", "function": {"name": "ride"}}
    reply = client.chat.completions.create(**ask, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.function.name == "ride"
    return fits(call.function.arguments, PARAMETERS)


def structured() -> str:
    """Ask for JSON that fits a schema."""
    form = {"type": "json_schema", "json_schema": {"name": "distance", "schema": DISTANCE, "strict": True}}
    return fits(client.chat.completions.create(**ask, response_format=form).choices[0].message.content or "", DISTANCE)


show(chat, stream, tool, structured)
