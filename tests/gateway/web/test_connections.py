"""What clients cannot do to the gateway by sending, reading and connecting as they like."""

import asyncio
import itertools
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import pytest_asyncio
import scripted_gateway
from scripted_gateway import CHAT, MODEL, ROUND_TIME, TEXT, Gateway, ScriptedDecoder, serve

from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.connection import HEAD_BYTES, SPARE

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny

LIMIT = 8
SHORT = 0.5
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET /health HTTP/1.1\r\nHo"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HALF_BODY = POST + b"Content-Length: 100\r\n\r\n{"

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the system has no such timeout")

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture(scope="module")
async def strict_server(tiny: ChatTokenizer) -> AsyncIterator[Gateway]:
    """Serve with short deadlines and few connections."""
    seconds = {f"{name}_timeout_seconds": SHORT for name in ("idle", "head", "body", "reader")}
    async with serve(tiny, ScriptedDecoder(), max_connections=LIMIT, **seconds) as gateway:
        yield gateway


@pytest_asyncio.fixture
async def strict(strict_server: Gateway) -> AsyncIterator[Gateway]:
    """Return it with its decoder reset, and check that no test leaves a session open."""
    vars(strict_server.decoder).update(vars(ScriptedDecoder()))
    strict_server.play(TEXT)
    yield strict_server
    await strict_server.until_idle()


@asynccontextmanager
async def connected(gateway: Gateway, sent: bytes = b"", number: int = 1) -> AsyncIterator[list[Connection]]:
    """Open connections and send the same on each."""
    port = int(gateway.url.rpartition(":")[2])
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    try:
        for _, writer in connections:
            writer.write(sent)
        yield connections
    finally:
        for _, writer in connections:
            writer.close()


def chat(**fields: Any) -> bytes:
    """Return a whole request."""
    body = json.dumps({"model": MODEL, "messages": CHAT} | fields).encode()
    return POST + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the status and the rest of an answer, up to the closing of the connection; 0 if there is none."""
    async with asyncio.timeout(10):
        told = await reader.read()
    return (int(told.split()[1]), told) if told else (0, b"")


async def until_decoding(gateway: Gateway, number: int = 1) -> None:
    """Wait until so many sessions are open."""
    async with asyncio.timeout(10):
        while gateway.decoder.num_open < number:
            await asyncio.sleep(0.01)


async def health_seconds(gateway: Gateway) -> float:
    """Return how long /health takes on a new connection."""
    started = time.perf_counter()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=5) as http:
        assert (await http.get("/health")).status_code == 200
    return time.perf_counter() - started


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"G", [408]),
        (HALF, [408]),
        (HALF_BODY, [408]),
        (GET, [200]),
        (GET + HALF, [200, 408]),
        (chat() + HALF_BODY, [200, 408]),
        (b"DELETE" + HALF_BODY[4:], [405]),
    ],
)
async def test_what_does_not_come_is_not_waited_for(strict: Gateway, sent: bytes, statuses: list[int]) -> None:
    """Claim: a connection is closed in time, whatever part of a request has come, with OpenAI's error if some has."""
    started = time.monotonic()
    async with connected(strict, sent) as [(reader, _)]:
        _, text = await answer(reader)
    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", text)] == statuses
    assert SHORT - 0.1 < time.monotonic() - started < 10
    if 408 in statuses:
        assert json.loads(text.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("start", [HALF, HALF_BODY])
async def test_a_byte_now_and_then_is_no_request(strict: Gateway, start: bytes) -> None:
    """Claim: the time counts from the first byte, so that a client who sends one at a time gains none."""
    started = time.monotonic()
    async with connected(strict, start) as [(reader, writer)]:
        reading = asyncio.create_task(answer(reader))
        with suppress(ConnectionError):
            while not reading.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
        assert (await reading)[0] == 408
    assert time.monotonic() - started < 5


async def test_a_busy_connection_has_no_deadline_of_these(strict: Gateway) -> None:
    """Claim: a request that is answered for long, and a client who asks again and again, keep their connections."""
    strict.decoder.pause_seconds = 0.8 * SHORT  # a round, of which the reply has several
    async with httpx.AsyncClient(base_url=strict.url, limits=httpx.Limits(max_connections=1)) as http:
        for _ in range(2):
            started = time.monotonic()
            response = await http.post("/v1/chat/completions", json={"model": MODEL, "messages": CHAT})
            assert response.json()["choices"][0]["message"]["content"] == TEXT
            assert time.monotonic() - started > SHORT
            await asyncio.sleep(SHORT / 4)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("pause_seconds", [0.0005, pytest.param(0.1, marks=LINUX)])
async def test_a_client_who_does_not_read(strict: Gateway, path: str, pause_seconds: float) -> None:
    """Claim: the connection of a client who reads nothing is closed, and with it what is decoded for it.

    On Linux that is so long before what is unread fills what there is for it.
    """
    strict.decoder.script = itertools.repeat(Round([5] * 50, 0, 0, None, ROUND_TIME))
    strict.decoder.pause_seconds = pause_seconds
    body = {"model": MODEL, "stream": True, "speculative": {"rounds": True}}
    body |= {"input": "hi"} if path == "/v1/responses" else {"messages": CHAT}
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(strict.url.rpartition(":")[2])))
        client.sendall(head.encode() + text)
        await until_decoding(strict)
        async with asyncio.timeout(20):
            while strict.decoder.num_open:
                await asyncio.sleep(0.05)
        assert pause_seconds < 0.1 or strict.decoder.num_rounds < 80


async def test_half_sent_requests_make_room(strict: Gateway) -> None:
    """Claim: beyond the limit those that have waited longest are closed, and requests are served meanwhile."""
    async with connected(strict, HALF, LIMIT + SPARE) as old, connected(strict, b"", LIMIT + SPARE):
        assert await health_seconds(strict) < 5
        assert (await strict.post()).status_code == 200
        assert [(await answer(reader))[0] for reader, _ in old[:LIMIT]] == [0] * LIMIT


async def test_requests_beyond_the_limit(strict: Gateway) -> None:
    """Claim: if all connections are being answered, one more gets 503 in OpenAI's form, and the probes an answer."""
    strict.decoder.pause_seconds = 60
    async with connected(strict, chat(), LIMIT):
        await until_decoding(strict, LIMIT)
        response = await strict.post()
        assert (response.status_code, response.json()["error"]["code"]) == (503, "too_many_connections")
        assert response.headers["connection"] == "close"
        async with httpx.AsyncClient(base_url=strict.url) as http:
            assert [(await http.get(path)).status_code for path in ("/health", "/metrics")] == [200, 200]
    await strict.until_idle()
    strict.decoder.pause_seconds = 0
    assert (await strict.post()).status_code == 200


async def test_a_client_who_leaves_behind_a_second_request(strict: Gateway) -> None:
    """Claim: that another request was sent ahead does not hide that the client is gone."""
    strict.decoder.pause_seconds = 60
    async with connected(strict, chat()) as [(_, writer)]:
        await until_decoding(strict)
        writer.write(GET)
        await asyncio.sleep(0.1)
        writer.close()
        await strict.until_idle()


async def test_requests_sent_ahead_are_answered_in_turn(strict: Gateway) -> None:
    """Claim: pipelined requests are answered in their order; too many bytes ahead close the connection."""
    async with connected(strict, GET + chat() + GET + HALF) as [(reader, _)]:
        _, text = await answer(reader)
    assert text.count(b"HTTP/1.1 200") == 3
    assert text.index(TEXT.encode()) < text.rindex(b'{"status":"ok"}')
    strict.decoder.pause_seconds = 60
    async with connected(strict, chat()) as [(reader, writer)]:
        await until_decoding(strict)
        writer.write(GET * (2 * HEAD_BYTES // len(GET)))
        with suppress(ConnectionResetError):
            assert (await answer(reader))[0] == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 40_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        GET[:-2] + b"a: " + b"b" * (HEAD_BYTES + 10) + b"\r\n\r\n",
        GET[:-2] + b"a: b\r\n" * (HEAD_BYTES // 6) + b"\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 40_000,
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 200_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    ],
    ids=["headers", "target", "long", "many", "chunks", "extension", "TLS"],
)
async def test_heads_and_chunks_are_bounded(strict: Gateway, sent: bytes) -> None:
    """Claim: what is too long for a head, or cut too small for a body, is refused before it is all parsed."""
    async with connected(strict, sent) as [(reader, _)]:
        started = time.process_time()
        try:
            status, text = await answer(reader)
        except ConnectionResetError:  # what was not read resets the connection, and may take the answer along
            return
        assert time.process_time() - started < 1
        assert (status, b'"invalid_request_error"' in text) == (400, True)


async def test_a_head_of_almost_the_limit(strict: Gateway) -> None:
    """Claim: 16 KiB are taken, whatever comes after them at once."""
    head = GET[:-2] + b"a: " + b"b" * (HEAD_BYTES - 100) + b"\r\n\r\n"
    async with connected(strict, head + head + GET + HALF) as [(reader, _)]:
        assert (await answer(reader))[1].count(b"HTTP/1.1 200") == 3


async def test_small_chunks_of_a_whole_body(strict: Gateway) -> None:
    """Claim: a body may come in chunks as a client's writer makes them."""
    body = json.dumps({"model": MODEL, "messages": CHAT}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    async with connected(strict, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n") as [(reader, _)]:
        assert (await answer(reader))[0] == 200


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
async def test_an_upgrade_is_ignored(strict: Gateway, upgrade: str) -> None:
    """Claim: a request to upgrade is answered as any other."""
    sent = GET.replace(b"Host: x", b"Host: x\r\nConnection: Upgrade\r\nUpgrade: " + upgrade.encode())
    async with connected(strict, sent) as [(reader, _)]:
        assert (await answer(reader))[0] == 200


async def test_a_client_who_ends_its_side_is_gone(strict: Gateway) -> None:
    """Claim: the end of what a client sends is taken for its leaving, as it cannot be told from that."""
    strict.decoder.pause_seconds = 60
    async with connected(strict, chat()) as [(_, writer)]:
        await until_decoding(strict)
        writer.write_eof()
        await strict.until_idle()
