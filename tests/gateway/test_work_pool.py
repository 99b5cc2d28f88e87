"""The threads for what takes CPU time: how many run, how many wait, and who gives up."""

import asyncio
import os
import threading

import pytest

from gateway.work_pool import OverloadedError, WorkPool

NUM_THREADS = max(2, os.cpu_count() or 1)


class Work:
    """Runs until it is let go, and counts."""

    def __init__(self) -> None:
        """Begin with none running."""
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.num_begun = 0

    def __call__(self) -> str:
        """Wait for the end."""
        with self.lock:
            self.num_begun += 1
        assert self.go.wait(20)
        return "done"


async def fill(pool: WorkPool, work: Work, num_waiting: int) -> list[asyncio.Task[str]]:
    """Occupy every thread, and have so many wait."""
    tasks: list[asyncio.Task[str]] = []
    async with asyncio.timeout(20):
        while pool.num_waiting < num_waiting:
            tasks.append(asyncio.create_task(pool.run(work)))
            await asyncio.sleep(0.01)
    return tasks


async def test_what_finds_no_place_is_refused() -> None:
    """Only so many wait; the next is refused at once, and later there is room again."""
    pool, work = WorkPool(max_waiting=3), Work()
    tasks = await fill(pool, work, 3)
    with pytest.raises(OverloadedError, match="3 requests wait"):
        await pool.run(work)
    assert work.num_begun == len(tasks) - 3
    work.go.set()
    assert await asyncio.gather(*tasks) == ["done"] * len(tasks)
    assert await pool.run(work) == "done"


async def test_who_gives_up_frees_a_place() -> None:
    """Cancelled while it waits, work never begins, and another may wait in its place."""
    pool, work = WorkPool(max_waiting=2), Work()
    tasks = await fill(pool, work, 2)
    running = len(tasks) - 2
    tasks[-1].cancel()
    await asyncio.wait([tasks[-1]])
    assert pool.num_waiting == 1
    late = asyncio.create_task(pool.run(work))
    work.go.set()
    assert await asyncio.gather(*tasks[:-1], late) == ["done"] * (running + 2)
    assert work.num_begun == running + 2


async def test_work_that_runs_keeps_its_thread() -> None:
    """Cancelled while it runs, it goes on unseen: others begin only when a thread is free."""
    pool, work = WorkPool(max_waiting=1), Work()
    tasks = await fill(pool, work, 1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    late = asyncio.create_task(pool.run(work))
    await asyncio.sleep(0.05)
    assert (work.num_begun, pool.num_waiting) == (len(tasks) - 1, 1)
    work.go.set()
    assert await late == "done"


async def test_long_work_leaves_a_thread() -> None:
    """However much work that may be long there is, given up or not, short work begins at once."""
    pool, work = WorkPool(max_waiting=9), Work()
    tasks = [asyncio.create_task(pool.run(work, long=True)) for _ in range(NUM_THREADS + 2)]
    async with asyncio.timeout(20):
        while work.num_begun < NUM_THREADS - 1:
            await asyncio.sleep(0.01)
    assert (pool.busy(long=True), pool.busy(), pool.num_waiting) == (True, False, 3)
    for task in (tasks[0], tasks[-1]):
        task.cancel()
    await asyncio.wait([tasks[0], tasks[-1]])
    assert await pool.run(lambda: "short") == "short"
    assert (work.num_begun, pool.num_waiting) == (NUM_THREADS - 1, 2)
    work.go.set()
    assert await asyncio.gather(*tasks[1:-1]) == ["done"] * NUM_THREADS


async def test_an_error_is_the_callers() -> None:
    """It reaches the caller, and the thread is free."""
    pool = WorkPool(max_waiting=0)
    for _ in range(50):
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 / 0)
