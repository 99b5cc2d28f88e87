"""Who may call: the key, and what is open without it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest
import pytest_asyncio
import scripted_gateway
import structlog
from pydantic import SecretStr
from scripted_gateway import CHAT, MODEL, TEXT, Gateway, ScriptedDecoder, error_of, serve

from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny

KEY = "sk-true-key"
OPEN = ["/health", "/ready", "/metrics", "/", "/page/page.js"]
CLOSED = ["/v1/models", "/version", "/docs", "/openapi.json", "/health/", "/page", "/v1/models?/health"]


@pytest_asyncio.fixture(scope="module")
async def locked(tiny: ChatTokenizer) -> AsyncIterator[Gateway]:
    """Serve with a key."""
    async with serve(tiny, ScriptedDecoder(), api_key=SecretStr(KEY)) as gateway:
        gateway.play(TEXT)
        yield gateway


async def get(gateway: Gateway, path: str, **headers: str) -> httpx.Response:
    """Get a path with these headers."""
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        return await http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_open_and_closed_routes(locked: Gateway) -> None:
    """Claim: without the key there are probes, metrics and the page, and a 401 in OpenAI's form elsewhere."""
    assert [(await get(locked, path)).status_code for path in OPEN] == [200] * len(OPEN)
    for path in CLOSED:
        response = await get(locked, path)
        error = error_of(response)
        assert (response.status_code, error["type"], error["code"]) == (401, "invalid_request_error", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-request-id"]
    for path in ("/v1/models", "/openapi.json"):
        assert (await get(locked, path, authorization=f"Bearer {KEY}")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer  {KEY}"}, 200),
        ({"x_api_key": KEY}, 200),
        ({"authorization": "Bearer none", "x_api_key": KEY}, 200),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": KEY}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"authorization": f"Bearer {KEY[:-1]}"}, 401),
        ({"x_api_key": ""}, 401),
    ],
)
async def test_headers(locked: Gateway, headers: dict[str, str], status: int) -> None:
    """Claim: the key comes as a bearer token or as x-api-key, whole."""
    assert (await get(locked, "/v1/models", **headers)).status_code == status


async def test_bytes_that_are_no_text(locked: Gateway) -> None:
    """Claim: any bytes may come in the place of the key."""
    async with httpx.AsyncClient(base_url=locked.url) as http:
        response = await http.get(
            "/v1/models", headers=[(b"authorization", b"Bearer \xff\xfe"), (b"x-api-key", b"\xc3")]
        )
    assert response.status_code == 401


async def test_openai_client(locked: Gateway) -> None:
    """Claim: OpenAI's client gets its reply with the key, and its own error without."""
    for key in (KEY, "wrong"):
        async with openai.AsyncOpenAI(base_url=f"{locked.url}/v1", api_key=key, max_retries=0) as client:
            asking = client.completions.create(model=MODEL, prompt="hi")
            if key == KEY:
                assert (await asking).choices[0].text == TEXT
            else:
                with pytest.raises(openai.AuthenticationError) as caught:
                    await asking
                assert caught.value.code == "invalid_api_key"


async def test_a_preflight_needs_no_key(locked: Gateway) -> None:
    """Claim: OPTIONS is answered as without a key."""
    async with httpx.AsyncClient(base_url=locked.url) as http:
        assert (await http.options("/v1/chat/completions")).status_code == 405


async def test_refused_before_the_body_is_read(locked: Gateway) -> None:
    """Claim: the 401 comes while the body does not, and nothing was planned."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(locked.url.rpartition(":")[2]))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
    async with asyncio.timeout(5):
        assert b" 401 " in await reader.readline()
    writer.close()


async def test_the_key_is_in_no_log(locked: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """Claim: neither a right nor a wrong key is logged, even by what logs requests."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logged:
        for key in (KEY, f"{KEY}-not"):
            async with httpx.AsyncClient(base_url=locked.url) as http:
                body = {"model": MODEL, "messages": CHAT}
                await http.post("/v1/chat/completions", json=body, headers={"x-api-key": key})
    assert KEY not in json.dumps(logged, default=repr) + caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{KEY}\n", ""),
        (None, "api_key_file cannot be read"),
        (" \n", "a key must be one word"),
        (f"{KEY}\n\n second\r\n", ""),
        (f"{KEY}\nsecond key", "a key must be one word"),
        ("sk-trüe", "a key must be one word"),
    ],
)
def test_key_file(
    tmp_path: Path,
    content: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Claim: a file may hold the key; one that holds none stops the start, and what it holds is not told."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content, "utf-8")
    monkeypatch.setattr("sys.argv", ["gateway", "--tokenizer=x", f"--api-key-file={path}"])
    settings = None
    with suppress(SystemExit):
        settings = GatewaySettings.load()
    told = capsys.readouterr().err
    assert message in told
    assert bool(settings) is not bool(message)
    if settings:
        assert settings.api_keys == tuple(str(content).split())
        told = repr(settings)
    assert "sk-" not in told


@pytest.mark.parametrize("flags", [["--api-key=sk- secret"], ["--port=x"], [], ["--help"]])
def test_settings_do_not_tell_the_key(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claim: whatever setting is wrong or missing, the key is in no message; nor is it in the help."""
    monkeypatch.setattr("sys.argv", ["gateway", *flags])
    monkeypatch.setenv("OUTRIDER_API_KEY", "sk-secret")
    with pytest.raises(SystemExit):
        GatewaySettings.load()
    told = "".join(capsys.readouterr())
    assert told
    assert "secret" not in told.replace("secretstr", "").replace("SecretStr", "")
