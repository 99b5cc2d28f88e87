"""LangChain's ChatOpenAI."""

from features import DISTANCE, MODEL, NUM_TOKENS, PARAMETERS, QUESTION, SEED, TOOL, URL, fits, show
from langchain_openai import ChatOpenAI

model = ChatOpenAI(base_url=URL, api_key="none", model=MODEL, max_retries=0, seed=SEED)


def chat() -> str:
    """Ask for a text."""
    return model.invoke(QUESTION, max_tokens=NUM_TOKENS).content


def stream() -> str:
    """Ask for the same text, in pieces."""
    pieces = [chunk.content for chunk in model.stream(QUESTION, max_tokens=NUM_TOKENS)]
    assert len(pieces) > 2
    assert "".join(pieces) == chat()
    return f"{len(pieces)} pieces"


def tool() -> str:
    """Ask for a tool call."""
    bound = model.bind_tools([TOOL], tool_choice="ride", parallel_tool_calls=False)
    (call,) = bound.invoke(QUESTION).tool_calls
    assert call["name"] == "ride"
    return fits(call["args"], PARAMETERS)


def structured() -> str:
    """Ask for an object that fits a schema."""
    schema = DISTANCE | {"title": "distance"}
    return fits(model.with_structured_output(schema, method="json_schema").invoke(QUESTION), DISTANCE)


show(chat, stream, tool, structured)
