"""The fixed set of graphs gives the CPU's tokens, whatever the mix of sessions, and compiles nothing while serving."""

import asyncio
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from shared.model.device import open_runner
from shared.model.device_draw import DrawInputs, draw_in_graph
from shared.model.engine_meter import EngineMeter
from shared.model.engine_settings import EngineSettings
from shared.model.graphs import GraphKey
from shared.model.model_runner import ModelRunner
from shared.model.noise import row_key
from shared.model.sampler import Sampler, draw
from shared.model.scheduler import Scheduler
from shared.model.slots import Slots
from shared.model.static_runner import StaticRunner
from shared.model.step import Segment
from shared.sampling_params import SamplingParams

SIZES = {"num_slots": 3, "max_length": 128, "max_draft_tokens": 4, "prefill_rows": 16, "smallest_bucket": 64}
NUM_TOKENS = 30


def settings(folder: Path, **changed: object) -> EngineSettings:
    """Return settings of a small set of graphs."""
    values: dict[str, Any] = SIZES | {
        "model": str(folder),
        "dtype": "float32",
        "device": "neuron",
        "compile_backend": "aot_eager",
    }
    return EngineSettings.model_construct(**values | changed)


@pytest.fixture(scope="module")
def runner(toy: tuple[Path, Path]) -> StaticRunner:
    """Return the toy target's graphs."""
    opened = open_runner(toy[1], settings(toy[1]), "none")
    assert isinstance(opened, StaticRunner)
    return opened


@pytest.fixture(scope="module")
def on_cpu(toy: tuple[Path, Path]) -> ModelRunner:
    """Return the same model as the CPU runs it."""
    opened = open_runner(toy[1], settings(toy[1], device="cpu"), "none")
    assert isinstance(opened, ModelRunner)
    return opened


def test_ragged_passes_equal_the_cpu(runner: StaticRunner, on_cpu: ModelRunner) -> None:
    """Prefills and verifies of any lengths, across buckets, with rollbacks, in any slots: the same logits and draws."""
    rng, compiled = random.Random(0), counters["stats"]["unique_graphs"]
    lengths = [0, 0, 0]
    for _ in range(60):
        segments = []
        for slot in rng.sample(range(3), rng.randint(1, 3)):
            num_rows = rng.choice((1, 1, 2, 3, 5, 5, 9, 30, 70))
            start = max(0, lengths[slot] - rng.choice((0, 0, 1, 4)))  # the draft tokens at the end were wrong
            start = 0 if start + num_rows > 128 else start
            tokens = [rng.randrange(500) for _ in range(num_rows)]
            params = SamplingParams(rng.choice((0, 0.7, 1.3)), seed=slot, min_p=rng.choice((0, 0.05)))
            segments.append(
                Segment(slot, start, tokens, rng.choice((0, 1, min(num_rows, 5), min(num_rows, 12))), params)
            )
            lengths[slot] = start + num_rows
        expected = on_cpu.extend(segments)
        for segment, ours, theirs in zip(segments, runner.extend(segments), expected, strict=True):
            if not segment.num_logits:
                continue
            torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
            first = segment.start + len(segment.token_ids) - segment.num_logits + 1
            assert segment.draw
            assert ours.drawn == [draw(row, segment.draw, first + i) for i, row in enumerate(theirs.logits)]
    assert counters["stats"]["unique_graphs"] == compiled


async def decode_all(runner: StaticRunner | ModelRunner, drafts: Sequence[Sequence[int]] | None) -> list[list[int]]:
    """Decode the cases, three at once; where drafts are given, they are proposed, right for a while and then wrong."""
    slots = Slots(3, SIZES["max_length"], 30, 64)
    scheduler = Scheduler(runner, SIZES["prefill_rows"], EngineMeter(slots))
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
    """Return prompts of many lengths, with parameters for draws on the device, on the host, and with a history."""
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


async def test_same_tokens_through_the_scheduler(runner: StaticRunner, on_cpu: ModelRunner) -> None:
    """Speculation on and off, by the graphs and on the CPU: one output, whichever place draws it."""
    expected = await decode_all(on_cpu, None)
    compiled = counters["stats"]["unique_graphs"]
    assert await decode_all(runner, None) == expected
    assert await decode_all(runner, expected) == expected
    assert counters["stats"]["unique_graphs"] == compiled


async def test_to_the_last_position(runner: StaticRunner) -> None:
    """A verify near the end of a slot is padded into scratch: what stands at its beginning is not touched."""
    prompt, end = [random.Random(1).randrange(500) for _ in range(120)], SIZES["max_length"]
    whole = runner.extend([Segment(0, 0, [*prompt, *range(8)], 8)])[0].logits
    runner.extend([Segment(0, 0, prompt, 0)])
    for position in range(120, end):
        logits = runner.extend([Segment(0, position, [position - 120], 1)])[0].logits
        torch.testing.assert_close(logits[0], whole[position - 120], rtol=1e-4, atol=1e-4)


def test_another_shape_is_an_error(runner: StaticRunner) -> None:
    """A pass that would compile fails, and says so, and the next one runs."""
    (slots, rows), key = runner._sizes.shape("verify"), GraphKey("verify", 64)
    tokens = torch.zeros(slots, rows + 1, dtype=torch.int32)
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompile"):
        runner._graphs.verify(key, tokens, tokens, DrawInputs.greedy(slots, rows + 1))
    assert runner.extend([Segment(0, 0, [1], 1)])[0].logits.shape == (1, 512)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_are_the_samplers(dtype: torch.dtype) -> None:
    """Greedy with ties, and sampled, over a large vocabulary: what the host draws of the same logits."""
    torch.manual_seed(0)
    logits = (torch.randn(2, 20, 5000) * 3).to(dtype)
    logits[0, :, 17:40] = logits.amax() + 1
    params = [SamplingParams(0), SamplingParams(0.8, seed=-5, min_p=0.001)]
    draws = DrawInputs.greedy(2, 20)
    draws.temperature[1], draws.floor[1] = 0.8, math.log(0.001)
    draws.noise_keys[1] = torch.tensor([row_key(-5, position) for position in range(20)])
    drawn = draw_in_graph(logits, torch.arange(5000, dtype=torch.int32), draws)
    assert drawn.dtype is torch.int32
    for rows, ours, how in zip(logits, drawn.tolist(), params, strict=True):
        assert ours == [draw(row, how, position) for position, row in enumerate(rows)]
