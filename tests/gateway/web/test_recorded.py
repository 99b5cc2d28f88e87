"""What coding agents sent when `make clients` ran them, sent again to the toy pair.

`recorded/` has each request with its texts shortened: of codex 0.171, opencode 1.18, Claude Code 2.1 and aider 0.86, at
first and after a call that the model made.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from services import StartService, decoder
from toy_gateway import serve

from gateway.text.tokenizer import ChatTokenizer
from scripts.clients import longer

RECORDED = Path(__file__).parent / "recorded"
LIMITS = {"/v1/responses": "max_output_tokens"}
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest_asyncio.fixture(scope="module")
async def url(
    start: StartService, toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """Serve the toy pair with a context that prompts with many tools fit."""
    folders = [longer(model, tmp_path_factory.mktemp("toy")) for model in toy]
    options: dict[str, Any] = {"dtype": "float32", "max_length": 16_384, "num_slots": 2}
    target, draft = (
        start(f"{name}_service", model=folder, **options).address
        for name, folder in zip(("target", "draft"), folders, strict=True)
    )
    async with decoder(target, draft) as decode, serve(decode, ChatTokenizer.load(str(folders[0]))) as url:
        yield url


def text_of(data: dict[str, Any]) -> str:
    """Return what an event adds to the reply's text. Raises ValidationError if OpenAI's package cannot read it."""
    if data.get("object") == "chat.completion.chunk":
        chunk = ChatCompletionChunk.model_validate(data)
        return "".join(choice.delta.content or "" for choice in chunk.choices)
    if data["type"].startswith("response."):
        event = RESPONSE_EVENT.validate_python(data)
        return str(event.delta) if event.type == "response.output_text.delta" else ""
    return str(data.get("delta", {}).get("text", ""))


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
async def test_recorded(url: str, name: str) -> None:
    """Claim: the request is answered, in events that its client reads, and with the same text with speculation off."""
    recorded = json.loads((RECORDED / f"{name}.json").read_text("utf-8"))
    limit = LIMITS.get(recorded["path"], "max_tokens")
    texts = []
    async with httpx.AsyncClient(base_url=url, timeout=60, headers=recorded["headers"]) as http:
        for enabled in (True, False):
            body = recorded["body"] | {"seed": 3, limit: 24, "speculative": {"enabled": enabled}}
            answer = await http.request(recorded["method"], recorded["path"], json=body)
            assert answer.status_code == 200, answer.text
            lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
            texts.append("".join(text_of(json.loads(line)) for line in lines if line != "[DONE]"))
    assert texts[0]
    assert texts[0] == texts[1]
