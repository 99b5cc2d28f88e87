"""Pydantic AI: an agent on the chat API."""

from typing import Literal

from features import MODEL, NUM_TOKENS, QUESTION, ROOM, SEED, URL, show
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=URL, api_key="none"))
settings = {"seed": SEED, "max_tokens": ROOM}
short = settings | {"max_tokens": NUM_TOKENS}


class Distance(BaseModel, extra="forbid"):
    """A distance."""

    length: int = Field(ge=0, le=999)
    unit: Literal["miles", "km"]


async def chat() -> str:
    """Ask for a text."""
    return (await Agent(model).run(QUESTION, model_settings=short)).output


async def stream() -> str:
    """Ask for the same text, in pieces."""
    async with Agent(model).run_stream(QUESTION, model_settings=short) as reply:
        pieces = [piece async for piece in reply.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 2
    assert "".join(pieces) == await chat()
    return f"{len(pieces)} pieces"


async def tool() -> str:
    """Ask for an object as the arguments of a call, which the package requires of the model."""
    agent = Agent(model, output_type=ToolOutput(Distance))
    return repr((await agent.run(QUESTION, model_settings=settings)).output)


async def structured() -> str:
    """Ask for an object that fits a schema."""
    agent = Agent(model, output_type=NativeOutput(Distance))
    return repr((await agent.run(QUESTION, model_settings=settings)).output)


show(chat, stream, tool, structured)
