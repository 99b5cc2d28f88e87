"""Models with weights of 8 bits: rotated without a change, rounded once, and opened as they were written."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from structlog.testing import capture_logs
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from shared.model.checkpoints.int8_folder import save_int8
from shared.model.checkpoints.pairs import TARGET, int8_folder, own_quant
from shared.model.checkpoints.rotation import rotated_parts
from shared.model.checkpoints.rounded_linear import RoundedLinear
from shared.model.loading.load_runner import load_runner
from shared.model.loading.target_folder import target_folder
from shared.model.runner import Segment
from shared.model.settings import Quant

TOKENS = [(7 * i) % 400 for i in range(60)]


@pytest.mark.parametrize("hidden", [96, 128])
def test_a_rotated_model_is_the_same(hidden: int) -> None:
    """With norms of all weights, and sizes with and without odd factors, the logits are the same up to rounding."""
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "intermediate_size": 80, "num_hidden_layers": 2, "vocab_size": 500}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=16, attention_bias=True)
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(parameter, 0.5, 2)
    with torch.inference_mode():
        before = model(torch.tensor([TOKENS])).logits
        parts = list(rotated_parts(model))
        after = model(torch.tensor([TOKENS])).logits
    assert len(parts) == 3
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(layer.input_layernorm.weight, torch.ones(hidden)) for layer in model.model.layers)


def test_it_is_made_once_and_opened(toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder holds whole numbers; its runner's logits are near those of the model, and its name tells."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    folder = int8_folder(toy[TARGET])
    assert own_quant(folder) == "int8"
    assert int8_folder(folder) == int8_folder(toy[TARGET]) == folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    linears = [module for module in model.modules() if isinstance(module, RoundedLinear)]
    assert len(linears) == sum(isinstance(module, nn.Linear) for module in model.modules())
    assert {linear.weight.dtype for linear in linears} == {torch.int8}
    assert sorted({(linear.in_features, linear.block) for linear in linears}) == [(64, 1), (128, 128)]
    rounded, whole = load_runner(folder, "bfloat16", 1, 64), load_runner(toy[TARGET], "float32", 1, 64)
    assert (rounded.quant, whole.quant) == ("int8", "none")
    assert not rounded.inexact
    [ours], [theirs] = (runner.extend([Segment(0, 0, TOKENS, 60)]) for runner in (rounded, whole))
    assert float((ours.logits - theirs.logits).abs().max()) < 0.15 * float(theirs.logits.std())


def test_the_size_of_a_token_is_what_was_planned(toy: tuple[Path, Path]) -> None:
    """Slots are chosen by what keys and values take, which in 8 bits are float32 whatever the model's type."""
    for quant in ("none", "int8"):
        with capture_logs() as logs:
            runner = load_runner(toy[TARGET], "bfloat16", 2, 64, quant)
        [planned] = (line for line in logs if line["event"] == "keys and values")
        assert planned["bytes_per_token"] == runner.token_bytes


def test_other_families_are_not_rotated(tmp_path: Path) -> None:
    """All their inputs are rotated in each product, and tied output layers leave the embeddings alone."""
    sizes = {"hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 1, "vocab_size": 90}
    config = AutoConfig.for_model("olmo2", **sizes, num_attention_heads=4, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    embeddings = model.model.embed_tokens.weight.detach().clone()
    save_int8(model, tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(opened.model.embed_tokens.weight, embeddings)
    assert {module.block for module in opened.modules() if isinstance(module, RoundedLinear)} == {16, 64}


def test_what_auto_means(toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left open, a folder's weights stay; `auto` takes what is faster, and a device for graphs takes none."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    name = str(toy[TARGET])
    orders: list[list[Quant]] = [["int8", "none"], ["none", "int8"]]
    for order in orders:
        faster = order[0]
        monkeypatch.setattr("shared.model.loading.target_folder.fastest_first", Mock(return_value=order))
        assert own_quant(target_folder(name, "auto")) == faster
        assert own_quant(target_folder(name, "")) == "none"
        assert own_quant(target_folder(name, "auto", "neuron")) == "none"
        assert own_quant(target_folder(name, "int8")) == "int8"
        assert own_quant(target_folder(name, "none")) == "none"
