"""OpenAI's package for Python, asynchronous, with its helpers for streams and pydantic classes."""

from typing import Any, Literal

from features import MODEL, NUM_TOKENS, PARAMETERS, QUESTION, SEED, TOOL, URL, fits, show
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

client = AsyncOpenAI(base_url=URL, api_key="none", max_retries=0)
ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "seed": SEED}


class Distance(BaseModel):
    """A distance."""

    length: int = Field(ge=0, le=999)
    unit: Literal["miles", "km"]


async def chat() -> str:
    """Ask for a text."""
    return (await client.chat.completions.create(**ask, max_tokens=NUM_TOKENS)).choices[0].message.content or ""


async def stream() -> str:
    """Ask for the same text, in pieces."""
    async with client.chat.completions.stream(**ask, max_tokens=NUM_TOKENS) as events:
        pieces = [event.delta async for event in events if event.type == "content.delta"]
    assert len(pieces) > 2
    assert "".join(pieces) == await chat()
    return f"{len(pieces)} pieces"


async def tool() -> str:
    """Ask for a tool call, in pieces."""
    choice = {"type": "function", "function": {"name": "ride"}}
    asked = ask | {"tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": False}
    async with client.chat.completions.stream(**asked) as events:
        reply = await events.get_final_completion()
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.function.name == "ride"
    return fits(call.function.arguments, PARAMETERS)


async def structured() -> str:
    """Ask for an instance of a class."""
    reply = await client.chat.completions.parse(**ask, response_format=Distance)
    assert isinstance(reply.choices[0].message.parsed, Distance)
    return repr(reply.choices[0].message.parsed)


show(chat, stream, tool, structured)
