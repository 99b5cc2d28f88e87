"""An HTTP client of OpenAI's chat API that measures times."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from benchmarks.reply import Reply

Messages = Sequence[Mapping[str, str]]
Ask = Callable[[str], Awaitable[Reply]]
TIMEOUT = httpx.Timeout(30, read=600)  # a queue of 32 requests may be minutes long on a CPU


def speculating(**fields: Any) -> Mapping[str, Any]:
    """Return fields of a request that speculates like this: without the memory, which would know repeated prompts."""
    return {"speculative": {"metrics": True, "memory": False, **fields}}


PLAIN = speculating(enabled=False)
SPECULATIVE = speculating()


def user(prompt: str) -> Messages:
    """Return the messages of a chat with one question."""
    return [{"role": "user", "content": prompt}]


@dataclass(frozen=True)
class Client:
    """Sends chats to one model of one server and streams the answers."""

    http: httpx.AsyncClient
    model: str
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0

    def asking(self, fields: Mapping[str, Any]) -> Ask:
        """Return a function that asks a question with these fields in the request."""

        async def ask(prompt: str) -> Reply:
            return await self.chat(user(prompt), fields)

        return ask

    async def chat(
        self, messages: Messages, fields: Mapping[str, Any] = SPECULATIVE, max_tokens: int | None = None
    ) -> Reply:
        """Return the answer. Errors are in the reply, for the report to show."""
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens or self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **fields,
        }
        reply, pieces, started = Reply(error="the stream ended early"), list[str](), perf_counter()
        try:
            async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    return Reply(error=f"HTTP {response.status_code}: {(await response.aread()).decode()[:300]}")
                async for line in response.aiter_lines():
                    if line == "data: [DONE]":
                        reply = replace(reply, error=None)
                    elif line.startswith("data: "):
                        reply = _add(reply, pieces, json.loads(line[6:]), perf_counter() - started)
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            return replace(reply, error=f"{type(error).__name__}: {error}")
        if reply.error is None and not (reply.piece_seconds and reply.completion_tokens):
            return replace(reply, error="no text, or no usage")
        return replace(reply, text="".join(pieces), seconds=perf_counter() - started)


def _add(reply: Reply, pieces: list[str], chunk: dict[str, Any], seconds: float) -> Reply:
    if "error" in chunk:
        return replace(reply, error=f"in the stream: {chunk['error']}")
    for choice in chunk["choices"]:
        if piece := choice["delta"].get("content"):
            pieces.append(piece)
            reply = replace(reply, piece_seconds=(*reply.piece_seconds, seconds))
    if usage := chunk.get("usage"):
        reply = replace(reply, prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"])
    if metrics := chunk.get("metrics"):
        reply = replace(reply, metrics=metrics["speculative_decoding"] or {})
    return reply


async def served(http: httpx.AsyncClient) -> str:
    """Return the gateway's target model, dtype and device, which may be `simulated`. Raises httpx.HTTPError."""
    response = await http.get("/version")
    version = response.raise_for_status().json()
    return f"{Path(version['model']).name} in {version['dtype']} on {version['device']}"


async def models(http: httpx.AsyncClient) -> list[str]:
    """Return the names of a server's models. Raises httpx.HTTPError."""
    response = await http.get("/v1/models")
    return [model["id"] for model in response.raise_for_status().json()["data"]]
