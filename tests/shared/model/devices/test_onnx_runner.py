"""A draft with weights of 4 bits, by ONNX Runtime: it decodes as the model does, and changes no output."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
import torch
from services import StartService, decoder

from shared.errors import ModelError
from shared.model.checkpoints.onnx_folder import GRAPH, convert_onnx
from shared.model.devices.onnx_runner import OnnxRunner
from shared.model.loading.load_runner import load_int4_runner, load_runner
from shared.model.loading.open_runner import open_runner, ways
from shared.model.runner import Runner, Segment
from shared.model.settings import DeviceKind, EngineSettings, Quant
from shared.sampling_params import SamplingParams

PROMPT = list(range(40, 100))


@pytest.fixture(scope="module")
def runner(toy: tuple[Path, Path]) -> OnnxRunner:
    """Return the toy pair's draft with weights of 4 bits."""
    return load_int4_runner(toy[1], num_slots=3, max_length=256)


def last(runner: Runner, slot: int, start: int, token_ids: Sequence[int]) -> torch.Tensor:
    """Return the logits of the last of the tokens, [V]."""
    return runner.extend([Segment(slot, start, token_ids, 1)])[0].logits[-1]


def test_it_computes_the_model(toy: tuple[Path, Path], runner: OnnxRunner) -> None:
    """At most places its likeliest token is the one of the model as it is; small random layers suffer most."""
    exact = load_runner(toy[1], "float32", 1, 256)
    expected = exact.extend([Segment(0, 0, PROMPT, len(PROMPT))])[0].logits.argmax(-1)
    got = torch.stack([last(runner, 0, i, PROMPT[i : i + 1]).argmax() for i in range(len(PROMPT))])
    assert (got == expected).float().mean() > 0.6


def test_rollback_is_a_length(runner: OnnxRunner) -> None:
    """What is rolled back leaves nothing, and the slots beside it are not touched."""
    expected = last(runner, 0, 0, PROMPT)
    last(runner, 1, 0, PROMPT[:32])
    last(runner, 2, 0, PROMPT[::-1])
    last(runner, 1, 32, [7] * 28)
    wanted = Segment(1, 32, PROMPT[32:], 1)
    prefill = Segment(2, 0, PROMPT[:8], 0)
    done, none = runner.extend([wanted, prefill])
    torch.testing.assert_close(done.logits[0], expected, atol=1e-3, rtol=1e-3)
    assert none.logits.shape == (0, len(expected))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_it_changes_no_output(start: StartService, toy: tuple[Path, Path], temperature: float) -> None:
    """With it and without, the tokens are the same, and it guesses many of them."""
    target = start("target_service", model=toy[0]).address
    draft = start("draft_service", model=toy[1], quant="int4").address
    params = SamplingParams(temperature=temperature, seed=5)
    async with decoder(target, draft) as decode:
        plain = [done async for done in decode.decode(PROMPT, params, 60, 0)]
        fast = [done async for done in decode.decode(PROMPT, params, 60, 4)]
    assert [t for done in fast for t in done.token_ids] == [t for done in plain for t in done.token_ids]
    assert sum(done.num_accepted for done in fast) > 0.2 * sum(done.num_drafted for done in fast)


@pytest.mark.parametrize(
    ("quant", "device", "tried"),
    [("auto", "cpu", ["int4", "int8", "none"]), ("auto", "neuron", ["none"]), ("int8", "cpu", ["int8"])],
)
def test_auto(toy: tuple[Path, Path], quant: Quant, device: DeviceKind, tried: list[Quant]) -> None:
    """`auto`, the default of `make serve`, begins with what is fastest; an accelerator takes no rounded weights."""
    assert ways(quant, device, toy[1]) == tried


def test_other_families(tmp_path: Path) -> None:
    """A family that is not known to be computed rightly is refused by name, and `auto` begins with 8 bits for it."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert ways("auto", "cpu", tmp_path) == ["int8", "none"]
    with pytest.raises(ModelError, match="quant int4: for llama, mistral, qwen2, qwen3"):
        load_int4_runner(tmp_path, 1, 64)


def test_auto_goes_on_without_a_graph_that_does_not_open(
    toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next way is taken, a log line says why, and the graph is not kept; who asks for int4 gets the reason."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    broken = "shared.model.checkpoints.onnx_folder.convert_onnx"
    monkeypatch.setattr(broken, lambda _, folder: (folder / GRAPH).write_bytes(b"no graph"))
    settings = EngineSettings.model_construct(model=str(toy[1]), quant="auto", num_slots=1, max_length=64)
    with structlog.testing.capture_logs() as logs:
        runner = open_runner(toy[1], settings)
    assert runner.quant == "int8"
    (said,) = (line for line in logs if line["event"] == "these weights cannot be had: trying the next ones")
    assert said["quant"] == "int4"
    assert said["reason"].startswith("qwen2: its graph of 4 bits cannot be opened (")
    with pytest.raises(ModelError, match="cannot be opened"):
        open_runner(toy[1], settings.model_copy(update={"quant": "int4"}))
    assert not list((tmp_path / "models").glob("draft-int4-*"))


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    """With the last line of the builder."""
    with pytest.raises(ModelError, match=r"could not be rounded to 4 bits: .+"):
        convert_onnx(tmp_path, tmp_path / "made")
