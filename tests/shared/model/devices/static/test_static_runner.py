"""The fixed set of graphs gives the CPU's tokens, whatever the mix of sessions, and compiles nothing while serving."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mix import SIZES, check_ragged_passes, decode_all, toy_graphs, trial_settings
from torch._dynamo.utils import counters

from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.devices.static.draw_in_graph import DrawInputs, draw_in_graph
from shared.model.devices.static.graphs import GraphKey
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.engine.measure_passes import measure_passes
from shared.model.loading.open_runner import open_runner
from shared.model.runner import Segment
from shared.model.sampling.noise import row_key
from shared.model.sampling.sampler import draw
from shared.sampling_params import SamplingParams


@pytest.fixture(scope="module")
def runner(toy: tuple[Path, Path]) -> StaticRunner:
    """Return the toy target's graphs."""
    return toy_graphs(toy[1])


@pytest.fixture(scope="module")
def on_cpu(toy: tuple[Path, Path]) -> CpuRunner:
    """Return the same model as the CPU runs it."""
    opened = open_runner(toy[1], trial_settings(toy[1], device="cpu"))
    assert isinstance(opened, CpuRunner)
    return opened


def test_ragged_passes_equal_the_cpu(runner: StaticRunner, on_cpu: CpuRunner) -> None:
    """Prefills and verifies of any lengths, across buckets, with rollbacks, in any slots: the same logits and draws."""
    compiled = counters["stats"]["unique_graphs"]
    check_ragged_passes(runner, on_cpu)
    assert counters["stats"]["unique_graphs"] == compiled


async def test_same_tokens_through_the_scheduler(runner: StaticRunner, on_cpu: CpuRunner) -> None:
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


def test_what_is_measured_is_what_is_served(runner: StaticRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that draw in the graph, without joining logits, where the graphs draw; else with the logits."""
    wanted, verify = [], runner.graphs.verify

    def verified(*args: Any, want_logits: bool) -> Any:
        wanted.append(want_logits)
        return verify(*args, want_logits=want_logits)

    monkeypatch.setattr(runner.graphs, "verify", verified)
    for draws in ("all", "nothing"):
        monkeypatch.setattr(runner, "choice", replace(runner.choice, draws=draws))
        assert [cost.num_rows for cost in measure_passes(runner, 3, 5)] == [1, 2, 4, 6, 8, 12]
        assert set(wanted) == {draws == "nothing"}
        wanted.clear()


def test_another_shape_is_an_error(runner: StaticRunner) -> None:
    """A pass that would compile fails, and says so, and the next one runs."""
    key = GraphKey("verify", 5, 64)
    slots, rows = runner.sizes.shape(key)
    tokens = torch.zeros(slots, rows + 1, dtype=torch.int32, device=runner.graphs.device)
    with torch.compiler.set_stance("fail_on_recompile"), pytest.raises(RuntimeError, match="recompile"):
        runner.graphs.verify(key, tokens, tokens, DrawInputs.greedy(slots, rows + 1).to(tokens.device))
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
    for rows, ours, sampling in zip(logits, drawn.tolist(), params, strict=True):
        assert ours == [draw(row, sampling, position) for position, row in enumerate(rows)]
