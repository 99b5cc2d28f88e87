"""Choices of one request share its slots, and no client's reading holds one."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import cast
from urllib.parse import urlsplit

import pytest
import scripted_gateway
from scripted_gateway import CHAT, MODEL, ROUND_TIME, Gateway

from gateway.generation import interleave as module
from gateway.generation.choice import Choice
from gateway.generation.delta import Delta
from gateway.generation.interleave import interleave
from gateway.rounds.round import Round
from shared.errors import NoFreeSlotError
from shared.sampling_params import SamplingParams

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted

CHOICE = Choice(0, [5], SamplingParams(), 9, None, None, stop_strings=())
CHOICES = [replace(CHOICE, index=index) for index in range(5)]


class Target:
    """Has some slots, and refuses at once or after a while those that find none; each holds its slot for a while."""

    def __init__(self, num_slots: int, *, prefill_seconds: float = 0.0) -> None:
        """Begin with all slots free."""
        self.num_free, self.num_refused = num_slots, 0
        self._prefill_seconds = prefill_seconds

    async def decode(self, choice: Choice) -> AsyncGenerator[Delta]:
        """Yield as many deltas as the choice's index, and one more."""
        await asyncio.sleep(0.01)
        if not self.num_free:
            self.num_refused += 1
            raise NoFreeSlotError("full", 1)
        self.num_free -= 1
        try:
            await asyncio.sleep(self._prefill_seconds)
            for _ in range(choice.index + 1):
                await asyncio.sleep(0.01)
                yield cast("Delta", choice.index)
        finally:
            self.num_free += 1


async def collected(target: Target, choices: Sequence[Choice], limit: int = 4) -> list[object]:
    """Return everything that the choices yield."""
    return [delta async for delta in interleave(choices, target.decode, limit)]


@pytest.mark.parametrize("num_slots", [1, 2])
async def test_refused_choices_wait_for_their_siblings(monkeypatch: pytest.MonkeyPatch, num_slots: int) -> None:
    """Claim: fewer slots than choices give all of every choice, also if a sibling with a slot has said nothing yet."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.005)
    target = Target(num_slots, prefill_seconds=0.05)
    assert sorted(map(str, await collected(target, CHOICES))) == sorted(
        str(choice.index) for choice in CHOICES for _ in range(choice.index + 1)
    )
    assert target.num_refused > 0
    assert target.num_free == num_slots


async def test_without_any_slot_there_is_nothing_to_share() -> None:
    """Claim: if all are refused, the request is, without another try."""
    target = Target(0)
    with pytest.raises(NoFreeSlotError):
        await collected(target, CHOICES, limit=3)
    assert target.num_refused == 3


async def test_a_slot_lost_in_the_middle_ends_the_request() -> None:
    """Claim: a choice that has begun is not begun again: its text would be sent twice."""

    async def decode(choice: Choice) -> AsyncGenerator[Delta]:
        yield cast("Delta", choice.index)
        raise NoFreeSlotError("full", 1)

    with pytest.raises(NoFreeSlotError):
        [delta async for delta in interleave(CHOICES, decode, 4)]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": CHAT, "n": 2}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
    ],
)
async def test_a_client_that_never_reads_holds_no_slot(scripted: Gateway, path: str, fields: dict[str, object]) -> None:
    """Claim: a reply far larger than what sockets hold is decoded to its end though nobody reads it."""
    longest = max(range(3, 300), key=lambda token_id: len(scripted.tokenizer.decode([token_id])))
    long = Round([longest] * 200, 0, 0, None, ROUND_TIME)
    scripted.decoder.script = [*repeat(long, 600), replace(long, finish_reason="stop")]
    body = json.dumps({"model": MODEL, "stream": True, **fields}).encode()
    address = urlsplit(scripted.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((address.hostname, address.port))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.sendall(head.encode() + body)
        async with asyncio.timeout(20):
            while not scripted.decoder.calls:
                await asyncio.sleep(0.005)
        await scripted.until_idle()
        assert scripted.decoder.num_rounds == 601 * int(str(fields.get("n", 1)))
