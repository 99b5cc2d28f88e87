"""Outcomes come several at a time: all of them with the last one, or those that are there when a job is slow."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.errors import SessionFailedError
from shared.model.engine import outcomes
from shared.model.engine.outcomes import Outcome, Outcomes
from shared.model.engine.verifier import Verdict
from shared.pb import specdec_pb2 as pb


def outcome(position: int, *, last: bool = False) -> Outcome:
    """Return what a pass made at this position."""
    return Outcome(position, Verdict(0, [position], []), last, pb.StepTiming())


async def taken(arriving: Outcomes) -> list[int]:
    """Return the positions of the next ones."""
    return [one.position for one in await anext(arriving)]


async def in_thread(arriving: Outcomes, delivered: Sequence[Outcome | Exception | None]) -> None:
    """Deliver these from another thread, as the worker does."""
    for one in delivered:
        await asyncio.to_thread(arriving.deliver, one)


async def test_the_last_one_brings_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is woken before it."""
    monkeypatch.setattr(outcomes, "HOLD_SECONDS", 60)
    left: list[bool] = []
    with Outcomes(lambda: left.append(True), 3) as arriving:
        taking = asyncio.create_task(taken(arriving))
        await asyncio.sleep(0)
        await in_thread(arriving, [outcome(0), outcome(1)])
        await asyncio.sleep(0.05)
        assert not taking.done()
        await in_thread(arriving, [outcome(2, last=True)])
        assert await taking == [0, 1, 2]
        with pytest.raises(StopAsyncIteration):
            await anext(arriving)
    assert not left


async def test_a_slow_job_is_not_waited_for() -> None:
    """What is there after a while is handed over, though the next pass may never end."""
    left: list[bool] = []
    with Outcomes(lambda: left.append(True), 3) as arriving:
        await in_thread(arriving, [outcome(0)])
        assert await taken(arriving) == [0]
        taking = asyncio.create_task(taken(arriving))
        await asyncio.sleep(0)
        await in_thread(arriving, [outcome(1)])
        assert await asyncio.wait_for(taking, 10) == [1]
    assert left


@pytest.mark.parametrize("end", [None, SessionFailedError("of a pass")], ids=str)
async def test_what_came_before_the_end_counts(end: Exception | None) -> None:
    """A withdrawal or an error comes after the outcomes that were made."""
    with Outcomes(lambda: None, 3) as arriving:
        await in_thread(arriving, [outcome(0), end])
        assert await taken(arriving) == [0]
        with pytest.raises(type(end) if end else StopAsyncIteration):
            await taken(arriving)
