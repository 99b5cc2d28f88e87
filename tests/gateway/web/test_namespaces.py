"""Whose a request is: its key and its salt keep what it leaves apart."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import scripted_gateway
from pydantic import SecretStr
from scripted_gateway import CHAT, MODEL, TEXT, Gateway, ScriptedDecoder, error_of, serve

from gateway.text.tokenizer import ChatTokenizer

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted

KEYS = ("sk-first", "sk-second")
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": CHAT},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": CHAT, "max_tokens": 50},
}


@pytest_asyncio.fixture(scope="module")
async def locked(tiny: ChatTokenizer) -> AsyncIterator[Gateway]:
    """Serve with two keys."""
    async with serve(tiny, ScriptedDecoder(), api_key=SecretStr("\n".join(KEYS))) as gateway:
        gateway.play(TEXT)
        yield gateway


async def whose(gateway: Gateway, path: str, key: str = "none", **fields: Any) -> str:
    """Return the namespace in which a request is decoded."""
    async with httpx.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {key}"}) as http:
        response = await http.post(path, json={"model": MODEL} | BODIES[path] | fields)
    assert response.status_code == 200, response.text
    return gateway.decoder.namespaces[-1]


@pytest.mark.parametrize("path", BODIES)
async def test_keys_and_salts(locked: Gateway, path: str) -> None:
    """Claim: each key, and each salt beside a key, has a namespace of its own, which tells neither."""
    asked = [(key, salt) for key in KEYS for salt in ({}, {"cache_salt": "a"}, {"cache_salt": "b"})]
    found = [await whose(locked, path, key, **salt) for key, salt in asked]
    assert len({*found, ""}) == 7
    assert found == [await whose(locked, path, key, **salt) for key, salt in asked]
    assert not any(word in "".join(found) for word in KEYS)


async def test_without_keys_all_share_one(scripted: Gateway) -> None:
    """Claim: a gateway without keys knows clients by their salts alone, whatever key they send."""
    path = "/v1/completions"
    assert await whose(scripted, path) == await whose(scripted, path, "sk-first") == ""
    salted = await whose(scripted, path, cache_salt="a")
    assert salted == await whose(scripted, "/v1/chat/completions", cache_salt="a") != ""


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("salt", ["", 5, ["a"]])
async def test_a_salt_is_a_text(scripted: Gateway, path: str, salt: Any) -> None:
    """Claim: any other salt is a 400 that names the field."""
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        response = await http.post(path, json={"model": MODEL} | BODIES[path] | {"cache_salt": salt})
    assert response.status_code == 400
    assert "cache_salt" in response.text
    if path != "/v1/messages":
        assert error_of(response)["param"] == "cache_salt"
