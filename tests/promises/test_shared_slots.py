"""Choices of one request share the slots that it gets, beside requests that hold the others."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import toy_gateway
from services import StartService, decoder
from toy_gateway import MODEL

from gateway.generation import interleave
from gateway.text.tokenizer import ChatTokenizer

ASK: dict[str, Any] = {"model": MODEL, "prompt": "the horse", "ignore_eos": True, "temperature": 1, "seed": 1}


@pytest.mark.parametrize("num_busy", [1, 2])
async def test_more_choices_than_free_slots(
    start: StartService, toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, num_busy: int
) -> None:
    """Claim: four choices on three slots, some of them busy, give four texts, the same as on a target of their own."""
    monkeypatch.setattr(interleave, "PAUSE_SECONDS", 0.05)
    target = start("target_service", model=toy[0], num_slots=3, slot_wait_seconds=0.05).address
    async with (
        decoder(target, None) as decode,
        toy_gateway.serve(decode, ChatTokenizer.load(str(toy[0]))) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        alone = (await http.post("/v1/completions", json=ASK | {"n": 4, "max_tokens": 60})).json()
        busy = ASK | {"n": num_busy, "max_tokens": 600, "stream": True}
        async with http.stream("POST", "/v1/completions", json=busy) as stream:
            lines = stream.aiter_lines()
            while decode.num_open < num_busy:
                await anext(lines)
            await asyncio.sleep(0.1)
            beside = (await http.post("/v1/completions", json=ASK | {"n": 4, "max_tokens": 60})).json()
            assert decode.num_open == num_busy  # they were busy throughout
    assert [choice["text"] for choice in beside["choices"]] == [choice["text"] for choice in alone["choices"]]
