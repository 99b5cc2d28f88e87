"""Watches from outside whether services live, from processes of its own: how quickly they answer, and what they say."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import httpx

INNOCENT = {
    "model": "toy",
    "prompt": "The draft model",
    "max_tokens": 100,
    "temperature": 1,
    "seed": 9,
    "ignore_eos": True,
    "stream": True,
}


@dataclass
class Seen:
    """What a watcher saw. Known when the watch has ended."""

    seconds: list[float] = field(default_factory=list)
    """How long each answer took, or each gap between a stream's events."""
    texts: set[str] = field(default_factory=set)

    def quantile(self, share: float) -> float:
        """Return the time within which this share of the questions was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def ask_health(url: str, ends: Callable[[float], bool]) -> Seen:
    """Ask for `/health` until told to stop."""
    seen = Seen()
    with httpx.Client(base_url=url, timeout=300) as http:
        while not ends(0.02):
            started = time.perf_counter()
            http.get("/health").raise_for_status()
            seen.seconds.append(time.perf_counter() - started)
    return seen


def read_streams(url: str, ends: Callable[[float], bool]) -> Seen:
    """Read one innocent stream after another until told to stop, at least one."""
    seen = Seen()
    with httpx.Client(base_url=url, timeout=300) as http:
        while True:
            text, last = "", 0.0
            with http.stream("POST", "/v1/completions", json=INNOCENT) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                        now = time.perf_counter()
                        seen.seconds += [now - last] if last else []
                        last = now
            seen.texts.add(text)
            if ends(0):
                return seen


def _watch(watcher: Callable[[str, Callable[[float], bool]], Seen], url: str, pipe: Connection) -> None:
    pipe.send(watcher(url, pipe.poll))


@contextmanager
def watching(watcher: Callable[[str, Callable[[float], bool]], Seen], url: str) -> Iterator[Seen]:
    """Let one watch throughout the block, in another process. Raises EOFError at its end if it saw an error."""
    processes: Any = get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_watch, args=(watcher, url, theirs))
    process.start()
    theirs.close()
    seen = Seen()
    try:
        yield seen
        ours.send(None)
        found = ours.recv()
        seen.seconds, seen.texts = found.seconds, found.texts
    finally:
        process.kill()
        process.join()


def gauge(metrics: str, name: str) -> float:
    """Return a metric without labels from Prometheus's text."""
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{name} "))


async def idle(url: str, name: str, seconds: float) -> None:
    """Wait until this gauge is 0. Raises TimeoutError."""
    async with httpx.AsyncClient() as http, asyncio.timeout(seconds):
        while gauge((await http.get(url)).text, name):
            await asyncio.sleep(0.05)
