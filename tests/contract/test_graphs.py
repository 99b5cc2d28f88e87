"""Every graph of the set, as torch-mlir lowers it and XLA runs it, over a ragged mix of sessions with rollbacks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mix import check_ragged_passes, decode_all, trial_settings
from services import ROOT
from stablehlo import StableHlo, faults_of_text
from transformers import (
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
from shared.model.devices.static.graphs import Graphs, GraphSizes
from shared.model.devices.static.static_cache import StaticLayer
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.loading.open_runner import open_runner
from shared.model.runner import Segment
from shared.sampling_params import SamplingParams

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


def run_by_xla(folder: Path, **changed: object) -> tuple[StaticRunner, StableHlo]:
    """Open the model with a backend of its own."""
    backend = StableHlo()
    runner = open_runner(folder, trial_settings(folder, compile_backend=backend, **changed))
    assert isinstance(runner, StaticRunner)
    return runner, backend


def violations(runner: StaticRunner, backend: StableHlo, addresses: frozenset[int]) -> list[str]:
    """Return in what the graphs break the contract; addresses: of all keys and values, from before the first call."""
    keys = runner._graphs.sizes.keys
    found = [] if len(backend.graphs) == len(keys) else [f"{len(backend.graphs)} graphs of {len(keys)}"]
    for key, seen in zip(keys, backend.graphs, strict=False):
        faults = list(seen.faults)
        if seen.num_results != (0 if key.kind == "prefill" else 2):
            faults.append(f"{seen.num_results} results")
        for mutated in set(seen.mutated) - {addresses}:
            elsewhere, untouched = len(mutated - addresses), len(addresses - mutated)
            faults.append(f"keys and values: {untouched} not mutated in place, {elsewhere} other tensors mutated")
        found += [f"{key.kind}, {key.num_keys} keys: {fault}" for fault in faults]
    return found


def addresses_of(runner: StaticRunner) -> frozenset[int]:
    """Return where the keys and values are."""
    return frozenset(tensor.data_ptr() for tensor in runner._graphs.cache.tensors)


@pytest.mark.parametrize("name", MODELS)
async def test_a_mix_of_sessions(tmp_path: Path, name: str) -> None:
    """One static graph each, that mutates keys and values alone, in place; the logits and tokens of the CPU."""
    folder = save(name, tmp_path)
    runner, backend = run_by_xla(folder)
    on_cpu = open_runner(folder, trial_settings(folder, device="cpu"))
    addresses = addresses_of(runner)
    expected = await decode_all(on_cpu, None)
    for alone in (False, True):
        runner._alone = alone
        check_ragged_passes(runner, on_cpu)
        assert await decode_all(runner, expected) == expected
        assert await decode_all(runner, None) == expected
    assert violations(runner, backend, addresses) == []
    assert addresses_of(runner) == addresses
    for key, seen in zip(runner._graphs.sizes.keys, backend.graphs, strict=True):
        assert len(seen.mutated) > 10  # the mix used each of them
        artefact = ARTEFACTS / folder.name / f"{key.kind}-{key.num_keys}.mlir"
        artefact.parent.mkdir(parents=True, exist_ok=True)
        artefact.write_text(seen.text)


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


def plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., torch.Tensor]) -> list[str]:
    """Compile the graphs with another `draw_in_graph`, and return what is found."""
    monkeypatch.setattr(graphs, "draw_in_graph", fault)
    runner, backend = small_set()
    runner.extend([Segment(0, 0, [1, 2, 3], 2)])
    return violations(runner, backend, addresses_of(runner))


def small_set() -> tuple[StaticRunner, StableHlo]:
    """Return the graphs of one bucket, without the trials of a start."""
    torch.manual_seed(0)
    backend = StableHlo()
    sizes = GraphSizes.of(trial_settings(Path()), 64)
    set_of_graphs = Graphs(MODELS["llama"](), sizes, torch.device("cpu"), backend)
    return StaticRunner(set_of_graphs, "a trial", alone=True), backend


def test_nothing_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that faults are planted is none."""
    assert plant(monkeypatch, draw_in_graph) == []


def test_planted_data_dependent_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as are sampled."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        sampled = inputs.temperature[inputs.temperature > 0]
        return draw_in_graph(logits, vocabulary, inputs) + sampled.sum().int()

    found = plant(monkeypatch, fault)
    assert any("dynamic shape: aten.index.Tensor (u0,)" in each for each in found), found


def test_planted_host_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that the host has to have."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        return draw_in_graph(logits, vocabulary, inputs) + inputs.noise_keys.amax().item()

    assert any("host sync: aten._local_scalar_dense" in found for found in plant(monkeypatch, fault))


def test_planted_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch on data does not even become a graph."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        if inputs.temperature.amax() > 0:
            return draw_in_graph(logits, vocabulary, inputs)
        return logits.argmax(-1).int()

    with pytest.raises(RuntimeError, match=r"(?i)data.dependent"):
        plant(monkeypatch, fault)


def test_planted_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits that are widened for a moment."""

    def fault(logits: torch.Tensor, vocabulary: torch.Tensor, inputs: DrawInputs) -> torch.Tensor:
        return draw_in_graph(logits.double() / 2 * 2, vocabulary, inputs)

    assert any("float64" in found for found in plant(monkeypatch, fault))


def test_planted_float64_in_the_text() -> None:
    """A number of Python's may be float64 for as long as it takes to round it, a tensor may not."""
    number = "%c = arith.constant dense<0.5> : tensor<1xf64>"
    rounded = "%0 = stablehlo.convert %c : (tensor<1xf64>) -> tensor<1xf32>"
    assert faults_of_text(f"func.func @main\n{number}\n{rounded}") == []
    product = "%1 = stablehlo.multiply %0, %0 : tensor<3x5xf64>"
    assert faults_of_text(f"func.func @main\n{number}\n{product}") == [f"float64: {product}"]
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
    keys, values = runner._graphs.cache.layers[1]
    runner._graphs.cache.layers[1] = keys.clone(), values.clone()
    runner.extend([Segment(0, 0, [1, 2, 3], 2)])
    found = violations(runner, backend, addresses)
    assert found == ["verify, 64 keys: keys and values: 2 not mutated in place, 2 other tensors mutated"]


def test_planted_shape_that_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as there are draft tokens."""
    runner, _ = small_set()
    padding = runner._padding
    monkeypatch.setattr(runner, "_padding", lambda kind: tuple(each[:, :3] for each in padding(kind)))
    with pytest.raises(RuntimeError, match="recompile"):
        runner.extend([Segment(0, 0, [1, 2, 3], 2)])
