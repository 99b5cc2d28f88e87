"""A start finds out which graphs give the same bits, and whether the device draws what the host draws."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mix import toy_graphs, trial_settings
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from shared.errors import ModelError
from shared.model.devices.static import draw_in_graph as drawing
from shared.model.devices.static import graphs as graphs_module
from shared.model.devices.static import noise_in_graph as noise_module
from shared.model.devices.static.draw_in_graph import DrawInputs, draw_in_graph
from shared.model.devices.static.graphs import GraphKey, Graphs, GraphSizes
from shared.model.devices.static.noise_in_graph import noise_in_graph, words_in_graph
from shared.model.devices.static.start_checks import choose, noise_survives
from shared.model.devices.static.static_cache import StaticLayer
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.loading import load_engine
from shared.model.runner import Segment
from shared.model.sampling.noise import FACTORS, noise_of, row_key, words_of
from shared.model.sampling.sampler import draw
from shared.sampling_params import SamplingParams
from target_service.__main__ import main
from target_service.settings import TargetSettings

VOCABULARY = 151_936
CPU = torch.device("cpu")


def test_noise_is_the_hosts() -> None:
    """The words bit by bit; of the small and the large, the noise as near as two logarithms are."""
    token_ids = torch.arange(VOCABULARY, dtype=torch.int32)
    low, high = torch.tensor(row_key(5, 6), dtype=torch.int32).unsqueeze(-1)
    assert words_in_graph(token_ids, low, high).numpy().tobytes() == words_of(token_ids.numpy(), 5, 6).tobytes()
    spread = torch.logspace(0, 31, 500_000, 2, dtype=torch.float64).long() - 1
    words = torch.cat([torch.arange(100_000), spread]).int()
    assert (noise_in_graph(words) - noise_of(words)).abs().max() < 2e-6


def log_of_one_less(words: torch.Tensor) -> torch.Tensor:
    """Return the noise as a device without log1p is feared to compute it."""
    uniform = ((words & 0x7FFFFFFF).float() + 0.5) * 2.0**-31
    return -torch.log(-torch.log(1 - uniform.clamp(max=1 - 2.0**-24)))


def float32_products(x: torch.Tensor) -> torch.Tensor:
    """Scramble as an engine does that multiplies int32 in float32."""
    for distance, mask, factor in zip((16, 15), (0xFFFF, 0x1FFFF), FACTORS, strict=True):
        x = ((x ^ ((x >> distance) & mask)).float() * float(factor)).long().int()
    return x ^ ((x >> 15) & 0x1FFFF)


def plant_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant it in the check and in the draws."""
    monkeypatch.setattr(graphs_module, "noise_in_graph", log_of_one_less)
    monkeypatch.setattr(drawing, "noise_in_graph", log_of_one_less)


def plant_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant them below both."""
    monkeypatch.setattr(noise_module, "_mix", float32_products)


@pytest.fixture(scope="module")
def rows() -> list[int]:
    """Return those of 2,000 positions where a token has one of the least words, and a few others."""
    token_ids = np.arange(VOCABULARY)
    least = [int((words_of(token_ids, 9, position) & 0x7FFFFFFF).min()) for position in range(2000)]
    return [position for position, word in enumerate(least) if word < 64] + list(range(3))


@pytest.mark.parametrize(
    ("plant", "least_wrong"), [(None, 0), (plant_logarithm, 3), (plant_products, 10)], ids=["ours", "log", "float32"]
)
def test_feared_noise(
    monkeypatch: pytest.MonkeyPatch,
    rows: list[int],
    plant: Callable[[pytest.MonkeyPatch], None] | None,
    least_wrong: int,
) -> None:
    """At a real vocabulary, of 2,000 rows some draw other tokens, and a start finds out; as we compute it, none do."""
    config = Qwen3Config(vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8)
    sizes = GraphSizes.of(trial_settings(Path(), num_slots=1), 64)
    if plant:
        plant(monkeypatch)
    assert noise_survives(Graphs(Qwen3ForCausalLM(config), sizes, CPU, "aot_eager")) == (plant is None)
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 4
    draws = DrawInputs.greedy(1, len(rows))
    draws.temperature[0] = 1
    draws.noise_keys[0] = torch.tensor([row_key(9, position) for position in rows])
    vocabulary = torch.arange(VOCABULARY, dtype=torch.int32)
    drawn = [
        draw_in_graph(
            logits[None, None], vocabulary, replace(draws, noise_keys=draws.noise_keys[:, at : at + 1])
        ).item()
        for at in range(len(rows))
    ]
    expected = [draw(logits, SamplingParams(1.0, seed=9), position) for position in rows]
    wrong = sum(ours != theirs for ours, theirs in zip(drawn, expected, strict=True))
    assert wrong >= least_wrong if plant else wrong == 0


@pytest.fixture
def unchosen(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> StaticRunner:
    """Return the runner as a start begins with it; afterwards it is as before."""
    runner = toy_graphs(toy[1])
    for name in ("choice", "graph_choice", "warmed", "inexact"):
        monkeypatch.setattr(runner, name, getattr(runner, name))
    runner.choice = replace(runner.choice, row_counts=(5,), wide_prefill=False, larger_buckets=False, draws="nothing")
    return runner


def test_wrong_words_are_drawn_by_the_host(unchosen: StaticRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the graphs draw what is greedy; and where not even that is right, nothing."""
    noise, verify = unchosen.graphs.noise, unchosen.graphs.verify
    monkeypatch.setattr(unchosen.graphs, "noise", lambda *args: (noise(*args)[0] ^ 1, noise(*args)[1]))
    choose(unchosen)
    assert unchosen.choice.draws == "greedy"
    greedy, sampled = Segment(0, 0, [1, 2], 1, SamplingParams(0)), Segment(1, 0, [1, 2], 1, SamplingParams(1))
    assert [rows.drawn is None for rows in unchosen.extend([greedy, sampled])] == [False, True]
    monkeypatch.setattr(unchosen.graphs, "verify", lambda *args, **_: (verify(*args)[0] ^ 1, verify(*args)[1]))
    choose(unchosen)
    assert unchosen.graph_choice
    assert unchosen.graph_choice.draws == "nothing"


@pytest.mark.parametrize("num_rows", [2, 5])
def test_a_slot_that_rounds_otherwise(unchosen: StaticRunner, monkeypatch: pytest.MonkeyPatch, num_rows: int) -> None:
    """The last one, in a graph of few rows, which is not used then, or in the widest, by which rows are not exact."""
    verify = unchosen.graphs.verify

    def planted(key: GraphKey, *args: Any, **wants: Any) -> Any:
        drawn, logits = verify(key, *args, **wants)
        if logits is not None and key.num_rows == num_rows:
            logits = torch.cat([logits[:-1], logits[-1:].nextafter(torch.tensor(torch.inf))])
        return drawn, logits

    monkeypatch.setattr(unchosen.graphs, "verify", planted)
    choose(unchosen)
    assert unchosen.choice.row_counts == ((5,) if num_rows == 2 else (2, 5))
    assert bool(unchosen.inexact) == (num_rows == 5)


async def test_verifies_that_depend_on_their_neighbours(
    unchosen: StaticRunner, monkeypatch: pytest.MonkeyPatch, toy: tuple[Path, Path]
) -> None:
    """Are refused on this device, too; who allows them is told which graphs run."""
    verify, scratch = unchosen.graphs.verify, unchosen.max_length

    def neighbourly(key: Any, ids: torch.Tensor, positions: torch.Tensor, draws: DrawInputs, **_: bool) -> Any:
        drawn, logits = verify(key, ids, positions, draws)
        assert logits is not None
        beside = (positions[:, 0] < scratch).sum() > 1
        return drawn, torch.nextafter(logits, torch.full_like(logits, torch.inf)) if beside else logits

    monkeypatch.setattr(unchosen.graphs, "verify", neighbourly)
    monkeypatch.setattr(load_engine, "open_runner", lambda *_: unchosen)
    choose(unchosen)
    assert not unchosen.choice.larger_buckets
    settings = TargetSettings.model_construct(**vars(trial_settings(toy[1])) | {"quant": "none"})
    with pytest.raises(
        ModelError, match=r"rows are not exact: a pass of .* rows at position .*; --allow-inexact serves"
    ):
        await main(settings)
    engine = await load_engine.load_engine(toy[1], settings)
    assert engine.inexact
    assert engine.info.graphs == unchosen.graph_choice
    assert engine.info.graphs.verify_us > 0


def test_a_prefill_that_rounds_otherwise(monkeypatch: pytest.MonkeyPatch, toy: tuple[Path, Path]) -> None:
    """Is not used: a prompt has the same bits whether it came at once or token by token, at the price that is told."""

    def write(self: StaticLayer, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any) -> Any:
        rounded = key_states if self._batch.every_slot else key_states.bfloat16().float()
        return update(self, rounded, value_states)

    update = StaticLayer.update
    monkeypatch.setattr(StaticLayer, "update", write)
    settings = trial_settings(toy[1], max_length=64)
    model = AutoModelForCausalLM.from_pretrained(toy[1], dtype=torch.float32).eval()
    runner = StaticRunner(Graphs(model, GraphSizes.of(settings, 64), CPU, settings.compile_backend), "planted")
    choose(runner)
    assert not runner.choice.wide_prefill
    assert runner.choice.prefill_us > 0
    ids = list(range(40))
    by_drafts = [runner.extend([Segment(1, at, ids[at : at + 4], 4)])[0].logits for at in range(0, 40, 4)][-1]
    assert torch.equal(runner.extend([Segment(0, 0, ids, 4)])[0].logits, by_drafts)
    runner.choice = replace(runner.choice, wide_prefill=True)
    assert not torch.equal(runner.extend([Segment(0, 0, ids, 4)])[0].logits, by_drafts)
