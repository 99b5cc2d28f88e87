"""K-quants: laid out as they are in the file, and files that become folders with them."""

from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from gguf_files import in_8_bits, write_gguf
from k_quant_models import random_model
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from shared.errors import ModelError
from shared.model.checkpoints.k_quant_folder import refuse_other_forms
from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.k_quants import K_QUANTS, laid_out, rounded_to, weight_of
from shared.model.checkpoints.pairs import TARGET, own_quant, resolve_model
from shared.model.devices.cpu.exactness.kernel_trial import Trial
from shared.model.loading.load_runner import load_runner
from shared.model.loading.target_folder import target_folder
from shared.model.runner import Segment

BYTES = {"Q4_K": 144, "Q5_K": 176, "Q6_K": 210}  # of a superblock
TOKENS = [(7 * i) % 400 for i in range(60)]


def some_blocks(name: str, num_outputs: int, num_inputs: int) -> NDArray[np.uint8]:
    """Return a tensor of random bytes, but for the factors, which are small: weights of about a tenth."""
    rng = np.random.default_rng(num_outputs + num_inputs)
    raw = rng.integers(0, 256, (num_outputs, num_inputs // 256, BYTES[name]), np.uint8)
    places = {208: 1e-4} if name == "Q6_K" else {0: 5e-4, 2: 5e-3}
    for place, size in places.items():
        factors = rng.uniform(size / 2, size, (*raw.shape[:2], 1)).astype(np.float16)
        raw[..., place : place + 2] = factors.view(np.uint8)
    return raw.reshape(num_outputs, -1)


@pytest.mark.parametrize("name", K_QUANTS)
def test_nothing_is_rounded_again(name: str) -> None:
    """The weights that are laid out are those that gguf's own code reads, bit for bit."""
    raw, form = some_blocks(name, 48, 768), K_QUANTS[name]
    expected = gguf.dequantize(raw, gguf.GGMLQuantizationType[name])
    assert torch.equal(weight_of(laid_out(raw, form), form), torch.from_numpy(expected))


@pytest.mark.parametrize(("name", "error"), [("Q4_K", 0.1), ("Q5_K", 0.05), ("Q6_K", 0.025)])
def test_rounding_for_a_trial(name: str, error: float) -> None:
    """It is about as near as the number of bits allows, and rows of zeros stay that."""
    weight = torch.randn(32, 512, generator=torch.Generator().manual_seed(0))
    weight[5] = 0
    found = weight_of(rounded_to(weight, K_QUANTS[name]), K_QUANTS[name])
    assert float((found - weight).square().mean().sqrt()) < error
    assert not found[5].any()


def _mixed(name: str, values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], gguf.GGMLQuantizationType]:
    """Return random blocks in the place of a matrix, of the forms that Q4_K_M and Q5_K_M mix."""
    form = "Q6_K" if name.startswith(("output", "blk.0.ffn_down", "blk.1.attn_v")) else "Q4_K"
    form = "Q5_K" if name.startswith("blk.1.ffn") else form
    return some_blocks(form, *values.shape), gguf.GGMLQuantizationType[form]


def _file(folder: Path, toy: Path, architecture: str, *, tied: bool = False) -> Path:
    """Write a .gguf file of a small model with the toy's tokenizer."""
    model = random_model(architecture, tie_word_embeddings=tied)
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(toy).save_pretrained(folder / "model")
    path = folder / "given.gguf"
    without = "output.weight" if tied else ""
    write_gguf(folder / "model", path, architecture=architecture, quantize=_mixed, without=without)
    return path


@pytest.mark.parametrize("given", ["qwen2", "llama", "qwen2, tied"])
def test_a_file_is_served_as_it_is(
    toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """The folder's weights are the file's, in the model's order of outputs; `auto` takes them where that is fastest."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))
    architecture, _, tied = given.partition(", ")
    path = _file(tmp_path, toy[TARGET], architecture, tied=bool(tied))
    costs = {torch.uint8: 1.0, torch.int8: 2.0, torch.bfloat16: 3.0}
    monkeypatch.setattr(
        "shared.model.loading.target_folder.fastest", lambda dtype: Trial(str(dtype), "", (costs[dtype], 0))
    )
    folder = target_folder(str(path), "")
    assert own_quant(folder) == "gguf"
    assert target_folder(str(path), "gguf") == folder
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    whole = AutoModelForCausalLM.from_pretrained(resolve_model(str(path)), dtype=torch.bfloat16)
    for name, linear in opened.named_modules():
        if isinstance(linear, KQuantLinear):
            [(form, tiles)] = linear.parts
            assert torch.equal(weight_of(tiles, form).bfloat16(), whole.get_submodule(name).weight), name
    served = load_runner(folder, "bfloat16", 1, 64)
    assert (served.quant, served.kernel, served.inexact) == ("gguf", "k-quants", "")
    [ours], [theirs] = (
        runner.extend([Segment(0, 0, TOKENS, 60)])
        for runner in (served, load_runner(resolve_model(str(path)), "float32", 1, 64))
    )
    assert float((ours.logits - theirs.logits).abs().mean()) < 0.05 * float(theirs.logits.std())
    costs[torch.uint8] = 4
    assert own_quant(target_folder(str(path), "auto")) == "int8"


def test_other_files_are_rounded(toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in 8 bits, and a folder: asked for, a sentence says why not; `auto` takes the next best weights."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "toy.gguf"
    write_gguf(toy[TARGET], path, quantize=in_8_bits)
    with pytest.raises(ModelError, match=r"toy\.gguf: heads of 16 numbers are not computed"):
        target_folder(str(path), "gguf")
    with pytest.raises(ModelError, match=r"quant gguf: .* is no \.gguf file"):
        target_folder(str(toy[TARGET]), "gguf")
    order = ["gguf", "int8", "none"]
    monkeypatch.setattr("shared.model.loading.target_folder.fastest_first", lambda **_: order)
    assert own_quant(target_folder(str(path), "auto")) == "int8"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"hidden_act": "gelu"}, "layers with gelu"),
        ({"model_type": "olmo2"}, "models of type olmo2"),
        ({"head_dim": 80}, "heads of 80 numbers"),
    ],
)
def test_other_layers_are_refused(changed: dict[str, object], reason: str) -> None:
    """By the configuration, before a weight is read."""
    own = {"model_type": "llama", "hidden_act": "silu", "head_dim": 64}
    with pytest.raises(ModelError, match=f"given: {reason} are not computed with a file's own blocks"):
        refuse_other_forms(SimpleNamespace(tensors=[]), PretrainedConfig(**own | changed), "given")
