"""What Prometheus reads of the services."""

import asyncio
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from services import StartService, decoder

from scripts.stack import free_port
from shared.sampling_params import SamplingParams


def read(port: int) -> dict[str, float]:
    """Return the values of all metrics that have no labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


async def test_what_services_are_scaled_by(start: StartService, toy: tuple[Path, Path]) -> None:
    """Slots, sessions that wait, time in passes and time before them, of either service."""
    ports = free_port(), free_port()
    settings = {"num_slots": 1, "dtype": "bfloat16"}
    target = start("target_service", model=toy[0], metrics_port=ports[0], **settings).address
    draft = start("draft_service", model=toy[1], metrics_port=ports[1], **settings).address
    async with decoder(target, draft) as decode:
        rounds = decode.decode([5, 6, 7], SamplingParams(), 40, 4)
        await anext(rounds)
        waiting = asyncio.ensure_future(anext(decode.decode([5, 6], SamplingParams(), 40, 0)))
        assert decode.num_open == 1
        await asyncio.sleep(0.3)
        assert decode.num_open == 2
        before = [read(port) for port in ports]
        _ = [done async for done in rounds]
        await waiting
        after = [read(port) for port in ports]
    for first, last in zip(before, after, strict=True):
        assert first["outrider_slots"] == first["outrider_slots_in_use"] == 1
        assert 0 < first["outrider_busy_seconds_total"] < last["outrider_busy_seconds_total"]
        assert first["outrider_queue_seconds_count"] < last["outrider_queue_seconds_count"]
    assert [values["outrider_sessions_waiting"] for values in before] == [1, 0]
    assert after[0]["outrider_sessions_waiting"] == 0
