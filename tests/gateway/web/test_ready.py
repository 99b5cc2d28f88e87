"""/ready tells whether the target can be reached, /health whether the gateway lives."""

import asyncio
from pathlib import Path

import httpx
from services import decoder, service
from toy_gateway import serve

from gateway.text.tokenizer import ChatTokenizer


async def until(http: httpx.AsyncClient, status: int) -> httpx.Response:
    """Ask until the gateway is ready or not, which /health does not depend on."""
    async with asyncio.timeout(30):
        while (response := await http.get("/ready")).status_code != status:
            await asyncio.sleep(0.05)
    assert (await http.get("/health")).status_code == 200
    return response


async def test_ready_follows_the_target(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Claim: 503 in OpenAI's form while the target is away, and 200 again when it is back."""
    with service("target_service", tmp_path / "first.log", model=toy[0]) as target:
        async with (
            decoder(target.address, None) as decode,
            serve(decode, ChatTokenizer.load(str(toy[0]))) as url,
            httpx.AsyncClient(base_url=url) as http,
        ):
            await until(http, 200)
            target.kill()
            assert (await until(http, 503)).json()["error"]["type"] == "service_unavailable"
            with service("target_service", tmp_path / "second.log", model=toy[0], address=target.address):
                await until(http, 200)
