"""What a client sees while its prompt is being read, and what a browser asks before it asks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import scripted_gateway
from scripted_gateway import CHAT, MODEL, Gateway, ScriptedDecoder, serve

from gateway.clients.errors import TargetUnavailableError
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer

tiny = scripted_gateway.tiny  # assigned, for pytest looks for fixtures among a module's names

ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": CHAT}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/v1/responses", {"input": "hi"}),
    ("/v1/messages", {"messages": CHAT, "max_tokens": 20}),
]


@asynccontextmanager
async def streamed(gateway: Gateway, path: str, body: dict[str, Any]) -> AsyncGenerator[httpx.Response]:
    """Ask for a stream; the block begins with its headers."""
    async with (
        httpx.AsyncClient(base_url=gateway.url) as http,
        http.stream("POST", path, json={"model": MODEL, "stream": True} | body) as response,
    ):
        yield response


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_headers_come_when_the_session_opens(tiny: ChatTokenizer, path: str, body: dict[str, Any]) -> None:
    """Claim: they do not wait for the first token; an error after them is an event, and one before them a status."""
    opened = asyncio.Event()

    class Slow(ScriptedDecoder):
        async def decode(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
            if self.opens:
                kwargs["opened"]()
                await opened.wait()
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                yield step

    async with serve(tiny, Slow(opens=True)) as gateway:
        gateway.play("so")
        async with streamed(gateway, path, body) as response:  # nothing has been decoded yet
            assert response.status_code == 200
            opened.set()
            assert "so" in (await response.aread()).decode()
        opened.clear()
        gateway.decoder.script = [TargetUnavailableError("gone")]
        async with streamed(gateway, path, body) as response:
            assert response.status_code == 200
            opened.set()
            assert "gone" in (await response.aread()).decode()
        gateway.decoder.opens = False
        async with streamed(gateway, path, body) as response:
            assert response.status_code == 503


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_comments_until_the_first_token(
    tiny: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    """Claim: with no session yet, headers come after a while all the same, and then comments."""
    monkeypatch.setattr("gateway.web.sse.SILENCE_SECONDS", 0.02)
    async with serve(tiny, ScriptedDecoder(pause_seconds=0.3)) as gateway:
        gateway.play("so", 50)
        async with streamed(gateway, path, body) as response:
            lines = [line async for line in response.aiter_lines() if line]
    first = next(index for index, line in enumerate(lines) if not line.startswith(":"))
    assert first >= 2
    assert not any(line.startswith(":") for line in lines[first:])


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_comments_while_nothing_is_written(
    tiny: ChatTokenizer, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    """Claim: comments come as long as the stream is silent, though tokens that are held back are drawn meanwhile."""
    monkeypatch.setattr("gateway.web.sse.SILENCE_SECONDS", 0.05)
    held = "a" * 9  # each round may begin the stop string
    async with serve(tiny, ScriptedDecoder(pause_seconds=0.03)) as gateway:
        gateway.play(held, 1)
        async with streamed(gateway, path, body | {"stop": [held + "b"]}) as response:
            lines = [line async for line in response.aiter_lines() if line]
    written = next(index for index, line in enumerate(lines) if held in line)
    assert sum(line.startswith(":") for line in lines[:written]) >= 2


async def test_a_client_that_leaves_while_it_waits(tiny: ChatTokenizer) -> None:
    """Claim: its decoding ends, before the headers and after them."""
    for opens in (True, False):
        async with serve(tiny, ScriptedDecoder(pause_seconds=60, opens=opens)) as gateway:
            gateway.play("so")
            leaving = asyncio.timeout(0.5)
            with pytest.raises(TimeoutError):
                async with leaving, streamed(gateway, *ROUTES[0]) as response:
                    await response.aread()
            await gateway.until_idle()


ORIGINS = [
    ("local", "http://localhost:5173", True),
    ("local", "https://127.0.0.1", True),
    ("local", "http://localhost.evil.test", False),
    ("https://a.test,https://b.test", "https://b.test", True),
    ("https://a.test,https://b.test", "http://localhost:5173", False),
    ("*", "https://c.test", True),
    ("", "http://localhost:5173", False),
]


@pytest.mark.parametrize(("setting", "origin", "allowed"), ORIGINS)
async def test_pages_of_other_sites(tiny: ChatTokenizer, setting: str, origin: str, *, allowed: bool) -> None:
    """Claim: a browser is told which pages may ask, before they do, and may show them the answer, be it an error."""
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with (
        serve(tiny, ScriptedDecoder(), cors_origins=setting) as gateway,
        httpx.AsyncClient(base_url=gateway.url) as http,
    ):
        asks["Access-Control-Request-Headers"] = "authorization,content-type,anthropic-version"
        before = await http.options("/v1/chat/completions", headers=asks)
        after = await http.post("/v1/chat/completions", headers={"Origin": origin}, json={})
    assert (before.status_code == 200) is allowed
    assert after.status_code == 400
    assert ("access-control-allow-origin" in after.headers) is allowed


def test_connections_outlast_load_balancers() -> None:
    """Claim: by default they stay open for longer than the longest of the common ones, Google's 600 seconds."""
    assert GatewaySettings.model_fields["idle_timeout_seconds"].default > 600
