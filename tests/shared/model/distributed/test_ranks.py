"""Ranks of device neuron's graphs, on a CPU: one graph for all, draws in the parts, copies of heads."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mix import decode_all, ragged_passes, trial_settings
from ranks import run_ranks
from traced import Traced
from transformers import Qwen3Config, Qwen3ForCausalLM

from shared.errors import NoTokenError
from shared.model.devices.static import start_checks
from shared.model.devices.static.draw_in_graph import DrawInputs, draw_in_graph
from shared.model.devices.static.graph_choice import GraphChoice
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.distributed.ranks import rank
from shared.model.loading.open_runner import open_runner
from shared.model.runner import NO_TOKEN, Runner
from shared.model.sampling.noise import row_key
from shared.model.sampling.sampler import draw
from shared.sampling_params import SamplingParams

PASSES = [
    [replace(s, draw=s.draw and replace(s.draw, logprobs=s.slot == 0)) for s in segments]
    for segments in ragged_passes(20)
]


def run_passes(runner: Runner) -> list[tuple[Sequence[int] | None, torch.Tensor | None]]:
    """Return what each segment of the passes draws, and its logits if they are wanted."""
    rows = [each for segments in PASSES for each in zip(segments, runner.extend(segments), strict=True)]
    return [(one.drawn, one.logits if segment.wants_logits else None) for segment, one in rows if segment.num_logits]


def decode(runner: Runner) -> Any:
    """Return the passes, the tokens without speculation, and those with it."""
    passes, plain = run_passes(runner), asyncio.run(decode_all(runner, None))
    return passes, plain, asyncio.run(decode_all(runner, plain))


def texts(runner: Runner) -> list[str]:
    """Return the graphs that this rank traced."""
    assert isinstance(runner, StaticRunner)
    backend = runner.graphs.backend
    return backend.texts if isinstance(backend, Traced) else []


def choose_where_noise_fails(runner: Runner) -> tuple[str, str]:
    """Return what is drawn in the graph, as chosen before and once the last rank finds that its noise is wrong."""
    assert isinstance(runner, StaticRunner)
    before, survives = runner.choice.draws, start_checks.noise_survives
    start_checks.noise_survives = lambda graphs: survives(graphs) and rank() == 0
    runner.choice = GraphChoice.widest(runner.sizes)
    start_checks.choose(runner)
    return before, runner.choice.draws


def tied_logits() -> torch.Tensor:
    """Return rows of whole numbers, the greatest in several ranks, one with a NaN, one of -inf."""
    torch.manual_seed(1)
    logits = torch.randn(2, 12, 512).round()
    logits[:, 3, 500], logits[:, 4] = torch.nan, -torch.inf
    logits[:, 5, 130:400], logits[:, 6, [9, 300]] = 7, torch.inf
    return logits


def draw_tied(runner: Runner) -> list[list[int]]:
    """Return what this rank draws from its part of them."""
    assert isinstance(runner, StaticRunner)
    vocabulary, ranks = runner.graphs.vocabulary, runner.graphs._ranks
    inputs = DrawInputs.greedy(2, 12)
    inputs.temperature[1] = 0.7
    inputs.noise_keys[1] = torch.tensor([row_key(3, position) for position in range(12)])
    part = tied_logits()[..., int(vocabulary[0]) : int(vocabulary[-1]) + 1]
    drawn: list[list[int]] = draw_in_graph(part, vocabulary, inputs, ranks).tolist()
    return drawn


def host_draws(logits: torch.Tensor, params: SamplingParams) -> list[int]:
    """Return what the host draws from each row."""
    drawn = []
    for position, row in enumerate(logits):
        try:
            drawn.append(draw(row, params, position))
        except NoTokenError:
            drawn.append(NO_TOKEN)
    return drawn


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random model of one layer, with two heads of keys and values."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "head_dim": 32}
    made = Qwen3ForCausalLM(
        Qwen3Config(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)  # so that logits are far enough apart
    folder = tmp_path_factory.mktemp("model")
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def alone(model: Path) -> Any:
    """Return the same of one process, as the CPU runs it."""
    runner = open_runner(model, trial_settings(model, device="cpu"))
    drawn = []
    for segments in PASSES:
        for segment, rows in zip(segments, runner.extend(segments), strict=True):
            if segment.num_logits and segment.draw:
                first = segment.start + len(segment.token_ids) - segment.num_logits + 1
                tokens = [draw(row, segment.draw, first + i) for i, row in enumerate(rows.logits)]
                drawn.append((tokens, rows.logits if segment.wants_logits else None))
    return drawn, asyncio.run(decode_all(runner, None))


def check(found: Any, alone: Any) -> list[torch.Tensor]:
    """Compare with one process's; return the logits."""
    passes, plain, speculative = found
    assert plain == speculative == alone[1]
    assert [drawn for drawn, _ in passes] == [drawn for drawn, _ in alone[0]]
    for (_, ours), (_, theirs) in zip(passes, alone[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    return [logits for _, logits in passes if logits is not None]


@pytest.mark.parametrize("collective", ["all_reduce", pytest.param("gather", marks=pytest.mark.contract)])
def test_all_ranks_trace_one_graph(model: Path, alone: Any, collective: str) -> None:
    """Byte for byte, with every constant: what one rank compiles, the others find in the cache."""
    found, traced = run_ranks(
        2, model, decode, texts, compile_backend=Traced, collective=collective, smallest_bucket=128
    )
    check(found, alone)
    assert len(traced[0]) > 3
    assert {"gather": "all_gather", "all_reduce": "all_reduce"}[collective] in "".join(traced[0])
    assert traced[0] == traced[1]


def test_ranks_that_disagree_about_the_noise(model: Path) -> None:
    """If one of them cannot make it, none draws with it: else they would run different graphs."""
    _, drawn = run_ranks(2, model, None, choose_where_noise_fails, compile_backend="eager", collective="all_reduce")
    assert drawn == [("all", "greedy")] * 2


def test_both_collectives_give_one_process_s_tokens(model: Path, alone: Any) -> None:
    """On four ranks, with copies of two heads of keys and values: equal bits, and the first of ties."""
    expected = [
        host_draws(*each) for each in zip(tied_logits(), (SamplingParams(0), SamplingParams(0.7, seed=3)), strict=True)
    ]
    logits = []
    for collective in ("gather", "all_reduce"):
        found, drawn = run_ranks(4, model, decode, draw_tied, compile_backend="eager", collective=collective)
        assert drawn == [expected] * 4
        logits.append(check(found, alone))
    for gathered, summed in zip(*logits, strict=True):
        assert torch.equal(gathered.view(torch.int32), summed.view(torch.int32))
