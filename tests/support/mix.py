"""A ragged mix of sessions, with rollbacks, for runners of fixed shapes."""

import asyncio
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

from shared.model.devices.static.static_runner import StaticRunner
from shared.model.engine.metrics import EngineMeter
from shared.model.engine.scheduler import Scheduler
from shared.model.engine.slots import Slots
from shared.model.loading.open_runner import open_runner
from shared.model.runner import Runner, Segment
from shared.model.sampling.sampler import Sampler, draw
from shared.model.settings import EngineSettings
from shared.sampling_params import SamplingParams

SIZES = {"num_slots": 3, "max_length": 128, "max_draft_tokens": 4, "prefill_rows": 16, "smallest_bucket": 64}
NUM_TOKENS = 30
BACKEND = os.environ.get("TRIAL_BACKEND", "aot_eager")  # on a Trn2: neuron


def trial_settings(folder: Path, **changed: object) -> EngineSettings:
    """Return settings for a small set of graphs, with two buckets of each kind."""
    values: dict[str, Any] = SIZES | {
        "model": str(folder),
        "dtype": "float32",
        "device": "neuron",
        "compile_backend": BACKEND,
    }
    return EngineSettings.model_construct(**values | changed)


@cache
def toy_graphs(folder: Path) -> StaticRunner:
    """Return this model's graphs, as a start chooses them; they are compiled once for all tests."""
    opened = open_runner(folder, trial_settings(folder))
    assert isinstance(opened, StaticRunner)
    return opened


def ragged_passes(num_passes: int) -> Iterator[list[Segment]]:
    """Yield passes of prefills and verifies of random lengths in random slots, across buckets, with rollbacks."""
    rng = random.Random(0)
    lengths = [0, 0, 0]
    for _ in range(num_passes):
        segments = []
        for slot in rng.sample(range(3), rng.randint(1, 3)):
            num_rows = rng.choice((1, 1, 2, 3, 5, 5, 9, 30, 70))
            start = max(0, lengths[slot] - rng.choice((0, 0, 1, 4)))  # the draft tokens at the end were wrong
            start = 0 if start + num_rows > SIZES["max_length"] else start
            tokens = [rng.randrange(500) for _ in range(num_rows)]
            num_logits = rng.choice((0, 1, min(num_rows, 5), min(num_rows, 12)))
            params = SamplingParams(rng.choice((0, 0.7, 1.3)), seed=slot, min_p=rng.choice((0, 0.05)))
            segments.append(Segment(slot, start, tokens, num_logits, params))
            lengths[slot] = start + num_rows
        yield segments


def check_ragged_passes(runner: Runner, on_cpu: Runner, num_passes: int = 60, *, draws: bool = True) -> None:
    """Compare logits with the CPU's, and what the runner draws, if it draws."""
    for segments in ragged_passes(num_passes):
        for segment, ours, theirs in zip(segments, runner.extend(segments), on_cpu.extend(segments), strict=True):
            if segment.num_logits:
                torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
                first = segment.start + len(segment.token_ids) - segment.num_logits + 1
                assert segment.draw
                drawn = [draw(row, segment.draw, first + i) for i, row in enumerate(theirs.logits)]
                assert ours.drawn == (drawn if draws else None)


async def decode_all(runner: Runner, drafts: Sequence[Sequence[int]] | None) -> list[list[int]]:
    """Decode the cases, three at once; if drafts are given, propose them, right for a while and then wrong."""
    slots = Slots(3, SIZES["max_length"], 30, 64)
    scheduler = Scheduler(runner, SIZES["prefill_rows"], EngineMeter(slots), ThreadPoolExecutor(1))
    running = asyncio.create_task(scheduler.run())

    async def one(number: int, prompt: list[int], params: SamplingParams) -> list[int]:
        session = await slots.open(prompt, Sampler(params, prompt))
        scheduler.prefill(session)
        rng = random.Random(number)
        while not session.ended and (done := len(session.token_ids) - len(prompt)) < NUM_TOKENS:
            guesses = list(drafts[number][done : done + min(rng.randint(0, 4), session.room - 1)]) if drafts else []
            if guesses and rng.random() < 0.5:
                guesses[-1] ^= 1
            await scheduler.verify(session, guesses)
        scheduler.withdraw(session, lambda: slots.close(session))
        return session.token_ids[len(prompt) :][:NUM_TOKENS]

    try:
        return await asyncio.gather(*(one(number, *case) for number, case in enumerate(cases())))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def cases() -> list[tuple[list[int], SamplingParams]]:
    """Return prompts of many lengths, with parameters for draws on the device, draws on the host, and a history."""
    rng = random.Random(5)
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 0.9, "seed": 3, "logprobs": True, "top_logprobs": 2},
        {"temperature": 1.2, "seed": 4, "min_p": 0.02},
        {"temperature": 0.8, "seed": 5, "top_p": 0.9, "top_k": 40},
        {"temperature": 0.8, "seed": 6, "frequency_penalty": 0.5, "logit_bias": {7: 2.0}},
    ]
    return [
        ([rng.randrange(500) for _ in range(length)], SamplingParams(**kinds[number % len(kinds)]))
        for number, length in enumerate((1, 2, 17, 33, 64, 70, 5, 16, 40, 90))
    ]
