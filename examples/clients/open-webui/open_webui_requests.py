"""The requests of Open WebUI's backend, which itself is too large to install here: as of its version 0.6 to 0.9."""

import json
from http.client import HTTPResponse
from typing import Any
from urllib.request import Request, urlopen

from features import MODEL, NUM_TOKENS, PARAMETERS, QUESTION, ROOM, SEED, TOOL, URL, fits, show

USER = {"role": "user", "content": QUESTION}
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer none", "X-OpenWebUI-User-Name": "Rider"}


def post(**fields: Any) -> HTTPResponse:
    """Post a chat as the backend does, which takes its own `metadata` out before."""
    body = json.dumps({"model": MODEL, "seed": SEED, "max_tokens": NUM_TOKENS} | fields).encode()
    return urlopen(Request(f"{URL}/chat/completions", body, HEADERS))  # noqa: S310 - the gateway


def deltas(**fields: Any) -> list[dict[str, Any]]:
    """Read a stream line by line."""
    asked = {"stream": True, "stream_options": {"include_usage": True}} | fields
    lines = [line.decode().strip() for line in post(**asked)]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    chunks = [json.loads(line) for line in data]
    assert chunks[-1]["usage"]["completion_tokens"]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def chat() -> str:
    """Ask for a chat's title, as tasks are."""
    task = {"role": "user", "content": f"### Task:\nGenerate a title.\n### Chat History:\nUSER: {QUESTION}"}
    fields = {"stream": False, "max_completion_tokens": NUM_TOKENS, "max_tokens": None}
    return json.load(post(messages=[task], **fields))["choices"][0]["message"]["content"]


def stream() -> str:
    """Ask for a reply, with the parameters that a chat can have."""
    parameters = {"temperature": 0.8, "top_p": 0.9, "frequency_penalty": 0, "stop": ["###"]}
    pieces = [
        delta.get("content", "") for delta in deltas(messages=[{"role": "system", "content": ""}, USER], **parameters)
    ]
    assert len(pieces) > 2
    return "".join(pieces)


def tool() -> str:
    """Ask for a call, and go on with its result: the history has the calls as they came, index included."""
    found = deltas(messages=[USER], tools=[TOOL], tool_choice="required", max_tokens=ROOM)
    parts = [part for delta in found for part in delta.get("tool_calls", ())]
    call = parts[0] | {"function": dict(parts[0]["function"])}
    call["function"]["arguments"] = "".join(part["function"]["arguments"] for part in parts)
    answer = {"role": "tool", "tool_call_id": call["id"], "content": "7 miles ridden"}
    said = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert deltas(messages=[USER, said, answer], tools=[TOOL])
    return fits(call["function"]["arguments"], PARAMETERS)


show(chat, stream, tool)
