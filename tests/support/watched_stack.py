"""The toy pair's three services, each a process of its own, and streams that must not notice what others send."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from services import Service, gateway, service
from vital_signs import Seen, ask_health, idle, read_streams, watching

from scripts.stack import free_port

log = structlog.get_logger()

ALLOWED_GAP_SECONDS = 0.1  # or twice the usual one, whichever is more


@dataclass(frozen=True)
class Stack:
    """The three services, and where their metrics are."""

    url: str
    services: list[Service]
    metrics: list[tuple[str, str]]
    """URLs, each with the gauge that is 0 when nothing runs."""


@pytest.fixture(scope="module")
def stack(toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run the toy pair with 4 slots and a short context, so that no reply takes long."""
    logs, ports = tmp_path_factory.mktemp("stack"), [free_port() for _ in range(2)]
    common = {"num_slots": 4, "max_length": 256, "dtype": "float32"}
    with (
        service("target_service", logs / "target.log", model=toy[0], metrics_port=ports[0], **common) as target,
        service("draft_service", logs / "draft.log", model=toy[1], metrics_port=ports[1], **common) as draft,
        gateway(logs / "gateway.log", tokenizer=toy[0], target=target.address, draft=draft.address) as url,
    ):
        metrics = [(f"http://127.0.0.1:{port}/metrics", "outrider_slots_in_use") for port in ports]
        yield Stack(url, [target, draft], [*metrics, (f"{url}/metrics", "outrider_streams")])


@pytest.fixture(scope="module")
def usual(stack: Stack) -> Seen:
    """Return what innocent streams see when nobody else asks."""
    with watching(read_streams, stack.url) as seen:
        time.sleep(2)
    return seen


@asynccontextmanager
async def watched(stack: Stack, usual: Seen, *, timed: bool) -> AsyncIterator[None]:
    """Check that what happens in the block changes no text, ends no service and leaves no slot taken.

    If `timed`, also that `/health` and the innocent streams were hardly slower for it: only where nothing else runs.
    """
    with watching(ask_health, stack.url) as health, watching(read_streams, stack.url) as streams:
        yield
    assert streams.texts == usual.texts
    assert [service.wait(0) for service in stack.services] == [None, None]
    for url, gauge in stack.metrics:
        await idle(url, gauge, seconds=20)
    longest, allowed = max(streams.seconds), max(2 * max(usual.seconds), ALLOWED_GAP_SECONDS)
    answered = {"times": len(health.seconds), "p999": health.quantile(0.999), "at_most": max(health.seconds)}
    log.info("watched", health=answered, longest_gap=longest, allowed_gap=allowed)
    if timed:
        assert health.quantile(0.999) <= 0.1
        assert max(health.seconds) <= 0.25
        assert longest <= allowed
