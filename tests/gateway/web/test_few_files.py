"""A gateway as a process of its own that may open few files, and that clients leave half their requests at."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from own_process import read_events
from services import ROOT, StartService

from scripts.stack import free_port

FILES, HALF_SENT = 256, 300
KEY = "sk-few"


@pytest.fixture
def few(start: StartService, toy: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Run a gateway with a key from its environment; yields its port and its process's id.

    It must end in time, and have told nobody the key.
    """
    target = start("target_service", model=toy[0]).address
    number, log = free_port(), tmp_path / "gateway.log"
    flags = [f"--tokenizer={toy[0]}", f"--target={target}", "--draft=", f"--port={number}", "--grace-seconds=5"]
    limited = ["bash", "-c", f'ulimit -n {FILES}; exec "$@"', "bash"]
    command = [*limited, sys.executable, "-m", "gateway", *flags]
    with log.open("wb") as sink:
        environment = os.environ | {"OUTRIDER_API_KEY": KEY}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + 60
        while not read_events(log, "serving"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield number, process.pid
        process.terminate()
        assert process.wait(20) == 0
        told = log.read_text()
        assert "fewer connections than max_connections" in told
        assert KEY not in told
        assert "Too many open files" not in told
    finally:
        process.kill()
        process.wait()


async def test_half_sent_requests(few: tuple[int, int]) -> None:
    """Claim: more half-sent requests than there are files are no obstacle to others, nor to its end.

    They all come while the event loop is held up, so that it finds them queued.
    """
    port, pid = few
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as http:
        while True:
            with suppress(httpx.ConnectError):
                assert (await http.get("/health")).status_code == 200
                break
            await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGSTOP)
    half = [await asyncio.open_connection("127.0.0.1", port) for _ in range(HALF_SENT)]
    for _, writer in half:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHo")
    os.kill(pid, signal.SIGCONT)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as http:
        for path in ("/health", "/ready", "/v1/models"):
            assert (await http.get(path)).status_code == 200
        body = {"model": "outrider", "prompt": "The road", "max_tokens": 4}
        assert (await http.post("/v1/completions", json=body)).status_code == 200
    async with asyncio.timeout(10):
        assert await half[0][0].read() == b""  # it gave way
    for _, writer in half:
        writer.close()
