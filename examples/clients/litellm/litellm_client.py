"""LiteLLM, which calls the model of any server of OpenAI's API `openai/…`."""

import os
from typing import Any

from features import DISTANCE, MODEL, NUM_TOKENS, PARAMETERS, QUESTION, SEED, TOOL, URL, fits, show

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise its import fetches prices
from litellm import completion

ask: dict[str, Any] = {"model": f"openai/{MODEL}", "messages": [{"role": "user", "content": QUESTION}], "seed": SEED}
ask |= {"base_url": URL, "api_key": "none", "num_retries": 0}


def chat() -> str:
    """Ask for a text."""
    return completion(**ask, max_tokens=NUM_TOKENS).choices[0].message.content


def stream() -> str:
    """Ask for the same text, in pieces."""
    pieces = [chunk.choices[0].delta.content or "" for chunk in completion(**ask, max_tokens=NUM_TOKENS, stream=True)]
    assert len(pieces) > 2
    assert "".join(pieces) == chat()
    return f"{len(pieces)} pieces"


def tool() -> str:
    """Ask for a tool call."""
    choice = {"type": "function", "function": {"name": "ride"}}
    reply = completion(**ask, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "ride"
    return fits(call.function.arguments, PARAMETERS)


def structured() -> str:
    """Ask for JSON that fits a schema."""
    form = {"type": "json_schema", "json_schema": {"name": "distance", "schema": DISTANCE, "strict": True}}
    return fits(completion(**ask, response_format=form).choices[0].message.content, DISTANCE)


show(chat, stream, tool, structured)
