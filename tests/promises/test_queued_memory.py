"""What the gateway holds for a stream that waits for a slot."""

import asyncio
import gc
import json
import socket
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import toy_gateway
from services import StartService, decoder
from toy_gateway import MODEL

from gateway.rounds.decoder import Decoder
from gateway.text.tokenizer import ChatTokenizer
from shared.sampling_params import SamplingParams

NUM_STREAMS = 30
MAX_BYTES = 90_000  # of 100 KB; the rest is left to gRPC, whose memory is not traced
PROMPT = " ".join(str(number) for number in range(400))


async def until_open(decode: Decoder, num_open: int) -> None:
    """Wait until so many sequences are decoded or queued."""
    async with asyncio.timeout(60):
        while decode.num_open != num_open:
            await asyncio.sleep(0.01)


async def test_queued_streams_are_small(start: StartService, toy: tuple[Path, Path]) -> None:
    """Claim: a queued stream with a prompt of a thousand tokens takes less than 90 KB of Python's memory."""
    tokenizer = ChatTokenizer.load(str(toy[0]))
    assert len(tokenizer.encode(PROMPT)) > 1000
    ask = {"model": MODEL, "prompt": PROMPT, "stream": True}
    body = json.dumps(ask).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n"
    )
    target = start("target_service", model=toy[0], num_slots=1, slot_wait_seconds=120).address
    async with (
        decoder(target, None) as decode,
        toy_gateway.serve(decode, tokenizer) as url,
        decode._target_client.session([5], SamplingParams(), 9) as holder,
        AsyncExitStack() as stack,
    ):
        await holder.verify([])
        address = urlsplit(url)

        def ask_many(count: int) -> None:
            for _ in range(count):
                client = stack.enter_context(socket.create_connection((address.hostname, address.port)))
                client.sendall(f"{head}\r\n".encode() + body)

        ask_many(2)  # what comes once is there then
        await until_open(decode, 2)
        tracemalloc.start()
        try:
            ask_many(NUM_STREAMS)
            await until_open(decode, 2 + NUM_STREAMS)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] / NUM_STREAMS < MAX_BYTES
        finally:
            tracemalloc.stop()
