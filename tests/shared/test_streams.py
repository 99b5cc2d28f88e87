"""Each message of a stream is waited for so long and no longer, for the price of hardly any timers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.errors import IdleError
from shared.streams import Stream


async def messages(*pauses: float) -> AsyncIterator[str]:
    """Yield a message after each pause."""
    for pause in pauses:
        await asyncio.sleep(pause)
        yield "message"


async def read(stream: Stream, arriving: AsyncIterator[str]) -> int:
    """Return how many messages came."""
    return len([message async for message in stream.requests(arriving)])


async def test_each_message_has_its_time() -> None:
    """All of them together may take longer; a stream that says nothing for too long ends."""
    stream = Stream(0.5)
    assert await read(stream, messages(*[0.1] * 8)) == 8
    with pytest.raises(IdleError, match=r"no message came for 0\.5 s"):
        await read(stream, messages(0.1, 30))
    assert (task := asyncio.current_task())
    assert not task.cancelling()  # nobody else asked for it
    with pytest.raises(IdleError, match="no message was read"):
        await stream.writer(asyncio.sleep)(30)
    stream.close()


async def test_a_cancellation_stays_one() -> None:
    """Whoever cancels the task is not told of idleness."""
    stream = Stream(0.1)
    reading = asyncio.create_task(read(stream, messages(30)))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, reading.cancel)
    with pytest.raises(asyncio.CancelledError):
        await reading
    stream.close()


async def test_a_stream_costs_few_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer a message would cost a round more than all that is checked of it."""
    loop = asyncio.get_running_loop()
    made: list[asyncio.TimerHandle] = []
    call_at = loop.call_at

    def counted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        made.append(call_at(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(loop, "call_at", counted)
    stream = Stream(60)
    assert await read(stream, messages(*[0] * 1000)) == 1000
    stream.close()
    assert len(made) == 1
    assert made[0].cancelled()  # what it holds is free
