"""Many who wait: how soon /health answers beside them, and what memory a queued stream takes."""

import asyncio
import multiprocessing
import re
import resource
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from http.client import HTTPConnection
from typing import NamedTuple

from benchmarks import prompts
from benchmarks.client import Client, user
from benchmarks.section import Section

MOST_P999_SECONDS, MOST_SECONDS, MOST_BYTES = 0.1, 0.25, 100_000  # /health's times, and a queued stream's memory
WHOLE = b"GET /health HTTP/1.1\r\nHost: crowd\r\n\r\n"
HALF = WHOLE[:-4]
EVERY_SECONDS = 0.01
OTHER_FILES = 100


class State(NamedTuple):
    """What a gateway is using."""

    memory: float
    """In bytes."""
    streams: float


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--idle", type=int, default=1000, help="connections that are kept open after a request")
    flags.add_argument("--half", type=int, default=300, help="connections with half a request")
    flags.add_argument("--streams", type=int, default=300, help="streams, of which num-slots are served at once")
    flags.add_argument("--seconds", type=float, default=20, help="how long /health is asked")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("A crowd of those who wait")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < (files := args.idle + args.half + args.streams + OTHER_FILES):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    url = client.http.base_url
    await client.chat(user(prompts.WARM_UP))
    host, port = url.host, url.port or 80
    async with waiting(host, port, WHOLE, args.idle), waiting(host, port, HALF, args.half):
        before = peak = await state(client)
        async with queued(client, args.streams) as errors:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own_process:
                asking = asyncio.wrap_future(own_process.submit(ask_health, host, port, args.seconds))
                while not asking.done():
                    await asyncio.wait([asking], timeout=0.5)
                    peak = max(peak, await state(client))
                seconds = sorted(asking.result())
    p999, a_stream = seconds[int(len(seconds) * 0.999)], (peak.memory - before.memory) / max(peak.streams, 1)
    refused = sum("HTTP 429" in error for error in errors)
    section.table(
        "/health",
        [{"asked": len(seconds), "p50, s": seconds[len(seconds) // 2], "p99.9, s": p999, "at most, s": seconds[-1]}],
    )
    section.table(
        "The gateway's memory",
        [
            {
                "before, MB": before.memory / 1e6,
                "at most, MB": peak.memory / 1e6,
                "streams then": peak.streams,
                "a stream, kB": a_stream / 1e3,
                "refused": refused,
            }
        ],
    )
    section.notes.append(
        f"{args.idle} idle connections, {args.half} with half a request and {args.streams} streams for the target's "
        f"{args.num_slots} slots, each opened again when it ends, or is refused since too many wait there already "
        "(OUTRIDER_MAX_WAITING). /health is asked by a process of its own, on a new connection each time."
    )
    section.problems += [f"a stream failed: {error}" for error in errors if "HTTP 429" not in error]
    if p999 > MOST_P999_SECONDS or seconds[-1] > MOST_SECONDS:
        section.problems.append(f"/health is meant to take {MOST_P999_SECONDS} s (p99.9), at most {MOST_SECONDS} s")
    if a_stream > MOST_BYTES:
        section.problems.append(f"a queued stream is meant to take at most {MOST_BYTES} bytes")
    return section


def ask_health(host: str, port: int, seconds: float) -> list[float]:
    """Ask /health on new connections for so long; return how long each took. Raises OSError, ValueError."""
    took, end = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        connection = HTTPConnection(host, port, timeout=10)
        connection.request("GET", "/health")
        if (status := connection.getresponse().status) != 200:
            raise ValueError(f"/health answered {status}")
        connection.close()
        took.append(time.perf_counter() - started)
        time.sleep(EVERY_SECONDS)
    return took


@asynccontextmanager
async def waiting(host: str, port: int, sent: bytes, number: int) -> AsyncIterator[None]:
    """Keep so many connections open, each with these bytes sent, and open those again that are closed."""

    async def one(opened: asyncio.Event) -> None:
        while True:
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(sent)
                    opened.set()
                    await reader.read()
                finally:
                    writer.close()

    async with asyncio.TaskGroup() as tasks:
        events = [asyncio.Event() for _ in range(number)]
        ones = [tasks.create_task(one(opened)) for opened in events]
        for opened in events:
            await opened.wait()
        yield
        for task in ones:
            task.cancel()


@asynccontextmanager
async def queued(client: Client, number: int) -> AsyncIterator[list[str]]:
    """Keep so many streams open; yields the errors of those that fail, as they come."""
    errors: list[str] = []

    async def one() -> None:
        while True:
            reply = await client.chat(user(prompts.unseen(prompts.WARM_UP)))
            if reply.error:
                errors.append(reply.error)
                await asyncio.sleep(1)

    async with asyncio.TaskGroup() as tasks:
        ones = [tasks.create_task(one()) for _ in range(number)]
        yield errors
        for task in ones:
            task.cancel()


async def state(client: Client) -> State:
    """Return what the gateway tells of itself. Raises ValueError where it does not."""
    told = (await client.http.get("/metrics")).text
    names = ("process_resident_memory_bytes", "outrider_streams")
    values = [re.search(rf"^{name} (\S+)$", told, re.MULTILINE) for name in names]
    if not all(values):
        raise ValueError("the gateway's /metrics do not tell its memory")
    return State(*(float(value[1]) for value in values if value))
