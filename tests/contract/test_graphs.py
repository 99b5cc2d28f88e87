"""Every graph of the set, as torch-mlir lowers it and XLA runs it, over a ragged mix of sessions with rollbacks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mix import check_ragged_passes, decode_all, trial_settings
from ranks import run_ranks
from services import ROOT
from stablehlo import StableHlo, faults_of_text
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from shared.model.devices.static import graphs
from shared.model.devices.static.draw_in_graph import DrawInputs, draw_in_graph
from shared.model.devices.static.graph_choice import GraphChoice
from shared.model.devices.static.graphs import Graphs, GraphSizes
from shared.model.devices.static.start_checks import choose
from shared.model.devices.static.static_cache import StaticLayer
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.distributed.collective import Collective
from shared.model.loading.load_runner import DTYPES
from shared.model.loading.open_runner import open_runner
from shared.model.loading.probes import inexact_pass
from shared.model.runner import Runner, Segment
from shared.sampling_params import SamplingParams

Draw = Callable[[torch.Tensor, torch.Tensor, DrawInputs], torch.Tensor]

pytestmark = pytest.mark.contract
ARTEFACTS = ROOT / "build" / "stablehlo"
SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=True)),
    "qwen2.5": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE)),
}


def save(name: str, folder: Path) -> Path:
    """Write a random model of this architecture, with logits that are far enough apart."""
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    model.save_pretrained(folder / name)
    return folder / name


def run_by_xla(folder: Path, **changed: Any) -> tuple[StaticRunner, StableHlo]:
    """Open the model with a backend of its own, and compile every graph of the set."""
    settings = trial_settings(folder, **changed)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[settings.dtype]).eval()
    sizes, backend = GraphSizes.of(settings, settings.fixed_size[1]), StableHlo()
    runner = StaticRunner(Graphs(model, sizes, torch.device("cpu"), backend), "a trial", GraphChoice.everything(sizes))
    return runner, backend


def violations(runner: StaticRunner, backend: StableHlo, addresses: frozenset[int]) -> list[str]:
    """Return in what the graphs break the contract; addresses: of all keys and values, from before the first call."""
    keys = [warmed.key for warmed in runner.warmed]
    found = [] if len(backend.graphs) >= len(keys) else [f"{len(backend.graphs)} graphs of {len(keys)}"]
    for key, seen in zip(keys, backend.graphs, strict=False):
        faults = list(seen.faults)
        if seen.num_results != (0 if key.kind == "prefill" else 2):
            faults.append(f"{seen.num_results} results")
        for mutated in set(seen.mutated) - {addresses}:
            elsewhere, untouched = len(mutated - addresses), len(addresses - mutated)
            faults.append(f"keys and values: {untouched} not mutated in place, {elsewhere} other tensors mutated")
        found += [f"{key.kind}, {key.num_rows} rows, {key.num_keys} keys: {fault}" for fault in faults]
    return found


def addresses_of(runner: StaticRunner) -> frozenset[int]:
    """Return where the keys and values are."""
    return frozenset(tensor.data_ptr() for tensor in runner.graphs.cache.tensors)


@pytest.mark.parametrize("name", MODELS)
async def test_a_mix_of_sessions(tmp_path: Path, name: str) -> None:
    """One static graph each, that mutates keys and values alone, in place; the logits and tokens of the CPU."""
    folder = save(name, tmp_path)
    runner, backend = run_by_xla(folder)
    on_cpu = open_runner(folder, trial_settings(folder, device="cpu"))
    addresses = addresses_of(runner)
    expected = await decode_all(on_cpu, None)
    for choice in (GraphChoice.widest(runner.sizes), runner.choice):
        runner.choice = choice
        check_ragged_passes(runner, on_cpu, draws=choice.draws == "all")
        assert await decode_all(runner, expected) == expected
        assert await decode_all(runner, None) == expected
    assert violations(runner, backend, addresses) == []
    assert addresses_of(runner) == addresses
    for key, seen in zip(runner.graphs.sizes.keys, backend.graphs, strict=True):
        assert len(seen.mutated) > 5  # the mix used each of them
        artefact = ARTEFACTS / folder.name / f"{key.kind}-{key.num_rows}-{key.num_keys}.mlir"
        artefact.parent.mkdir(parents=True, exist_ok=True)
        artefact.write_text(seen.text)
    runner.choice = GraphChoice.widest(runner.sizes)
    choose(runner)
    assert runner.choice.draws == "all"
    assert inexact_pass(runner, runner.vocab_size)[0] == ""
    assert backend.graphs[-1].faults == []  # of the noise alone


def test_bfloat16(tmp_path: Path) -> None:
    """What is deployed is bfloat16: it lowers as well, and its logits are the CPU's but for rounding."""
    folder = save("qwen3", tmp_path)
    runner, backend = run_by_xla(folder, dtype="bfloat16", max_length=64)
    on_cpu = open_runner(folder, trial_settings(folder, device="cpu", dtype="bfloat16"))
    segment = Segment(1, 0, list(range(40)), 5, SamplingParams(0))
    ours, theirs = (each.extend([segment])[0].logits.float() for each in (runner, on_cpu))
    assert float((ours - theirs).abs().max()) < 0.1 * float(theirs.std())
    assert violations(runner, backend, addresses_of(runner)) == []
    assert "xbf16>" in backend.graphs[1].text


def seen_by_rank(runner: Runner) -> tuple[list[str], list[str]]:
    """Return the StableHLO of each graph that this rank compiled for its start, and what is wrong with them."""
    assert isinstance(runner, StaticRunner)
    backend = runner.graphs.backend
    assert isinstance(backend, StableHlo)
    return [seen.text for seen in backend.graphs], [fault for seen in backend.graphs for fault in seen.faults]


def planted_in_ranks() -> StableHlo:
    """Compare what the ranks have in float64."""
    greatest = Collective.greatest
    Collective.greatest = lambda self, values: greatest(self, values.double()).float()  # type: ignore[method-assign]
    return StableHlo()


def test_two_ranks(tmp_path: Path) -> None:
    """Their graphs, which are others than those of one process, keep to the contract, and are the same for both."""
    _, ((texts, faults), other) = run_ranks(
        2, save("qwen3", tmp_path), None, seen_by_rank, compile_backend=StableHlo, smallest_bucket=128
    )
    assert faults == []
    assert (texts, faults) == other
    assert len(texts) > 6  # a prefill, verifies, the noise, and what joins and compares what the ranks have
    assert all(texts)


def test_planted_in_ranks(tmp_path: Path) -> None:
    """A fault in what ranks alone have."""
    _, ranks = run_ranks(
        2, save("llama", tmp_path), None, seen_by_rank, compile_backend=planted_in_ranks, smallest_bucket=128
    )
    assert all(any(fault.startswith("float64: ") for fault in faults) for _, faults in ranks)


def small_set(row_counts: tuple[int, ...] = (5,)) -> tuple[StaticRunner, StableHlo]:
    """Return the verify graphs of one bucket, without the checks of a start."""
    torch.manual_seed(0)
    backend = StableHlo()
    sizes = replace(GraphSizes.of(trial_settings(Path()), 64), row_counts=row_counts)
    return StaticRunner(Graphs(MODELS["llama"](), sizes, torch.device("cpu"), backend), "a trial"), backend


def plant(fault: Draw) -> list[str]:
    """Compile this in the place of `draw_in_graph`, and return what is found."""
    backend = StableHlo()
    vocabulary = torch.arange(512, dtype=torch.int32)
    graphs.compiled(fault, backend)(torch.randn(3, 5, 512), vocabulary, DrawInputs.greedy(3, 5))
    return backend.graphs[0].faults


def test_nothing_planted() -> None:
    """The way that faults are planted is none."""
    assert plant(draw_in_graph) == []


def halved(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
    """Multiply by a number of Python's."""
    return draw_in_graph(logits * 0.3, vocabulary, inputs)


def compared(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
    """Compare with a number of Python's."""
    return draw_in_graph(torch.where(logits > 0.3, logits, torch.zeros_like(logits)), vocabulary, inputs)


def chosen(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
    """Choose a number of Python's."""
    return draw_in_graph(logits.masked_fill(logits > logits.mean(), 0.3), vocabulary, inputs)


def split(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
    """Split into unequal parts."""
    return draw_in_graph(torch.cat(torch.split(logits, [500, 12], -1)[::-1], -1), vocabulary, inputs)


def split_with_a_rest(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
    """Split into parts of which the last is smaller."""
    return draw_in_graph(torch.cat(torch.split(logits, 500, -1)[::-1], -1), vocabulary, inputs)


def divided(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
    """Divide integers by 3."""
    return draw_in_graph(logits, vocabulary, inputs) // 3


def remaining(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
    """Take what remains of a division by 3."""
    return draw_in_graph(logits, vocabulary, inputs) % 3


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (halved, "float64: "),
        (compared, "float literal: "),
        (chosen, "float literal: "),
        (split, "unequal split: "),
        (split_with_a_rest, "unequal split: "),
        (divided, "integer division: "),
        (remaining, "integer division: "),
    ],
)
def test_planted_operation(fault: Draw, found: str) -> None:
    """What neuronx-cc was seen to refuse, or to compute wrongly."""
    assert any(each.startswith(found) for each in plant(fault)), plant(fault)


def test_planted_row() -> None:
    """A graph for one row of a slot, which neuronx-cc has misread."""
    runner, backend = small_set((1,))
    assert any("one row: " in found for found in violations(runner, backend, addresses_of(runner)))


def test_planted_data_dependent_shape() -> None:
    """As many rows as are sampled."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        sampled = inputs.temperature[inputs.temperature > 0]
        return draw_in_graph(logits, vocabulary, inputs) + sampled.sum().int()

    found = plant(fault)
    assert any("dynamic shape: aten.index.Tensor (u0,)" in each for each in found), found


def test_planted_host_sync() -> None:
    """A number that the host has to have."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        return draw_in_graph(logits, vocabulary, inputs) + inputs.noise_keys.amax().item()

    assert any("host sync: aten._local_scalar_dense" in found for found in plant(fault))


def test_planted_branch() -> None:
    """A branch on data does not even become a graph."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        if inputs.temperature.amax() > 0:
            return draw_in_graph(logits, vocabulary, inputs)
        return logits.argmax(-1).int()

    with pytest.raises(RuntimeError, match=r"(?i)data.dependent"):
        plant(fault)


def test_planted_float64() -> None:
    """Logits that are widened for a moment."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        return draw_in_graph(logits.double() / 2 * 2, vocabulary, inputs)

    assert any("float64" in found for found in plant(fault))


def test_planted_float64_in_the_text() -> None:
    """Not even a number of Python's may be float64 for as long as it takes to round it."""
    number = "%c = arith.constant dense<0.5> : tensor<1xf64>"
    rounded = "%0 = stablehlo.convert %c : (tensor<1xf64>) -> tensor<1xf32>"
    assert faults_of_text(f"func.func @main\n{number}\n{rounded}") == [f"float64: {number}", f"float64: {rounded}"]
    assert faults_of_text("func.func @main\n%1 = stablehlo.add %0, %0 : tensor<?x5xf32>")


def test_planted_copy_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are written to a copy."""

    def write(self: StaticLayer, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any) -> object:
        self.keys = self.keys.clone()
        return update(self, key_states, value_states)

    update = StaticLayer.update
    monkeypatch.setattr(StaticLayer, "update", write)
    runner, backend = small_set()
    assert any("2 not mutated in place" in found for found in violations(runner, backend, addresses_of(runner)))


def test_planted_move_of_the_cache() -> None:
    """Keys and values that are elsewhere after a while, which no guard of Dynamo's sees."""
    runner, backend = small_set()
    addresses = addresses_of(runner)
    keys, values = runner.graphs.cache.layers[1]
    runner.graphs.cache.layers[1] = keys.clone(), values.clone()
    runner.extend([Segment(0, 0, [1, 2, 3], 2)])
    found = violations(runner, backend, addresses)
    assert found == ["verify, 5 rows, 64 keys: keys and values: 2 not mutated in place, 2 other tensors mutated"]


def test_planted_shape_that_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as there are draft tokens."""
    runner, _ = small_set()
    padding = runner._padding
    monkeypatch.setattr(runner, "_padding", lambda key: tuple(each[:, :3] for each in padding(key)))
    with pytest.raises(RuntimeError, match="recompile"):
        runner.extend([Segment(0, 0, [1, 2, 3], 2)])
