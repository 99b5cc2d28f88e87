"""All layers in one call: near what the model's own code makes of them, and each row from that row alone."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from k_quant_models import random_model, save_rounded
from transformers import AutoModelForCausalLM

from shared.errors import ModelError
from shared.model.devices.cpu import k_quant_layers
from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.devices.cpu.k_quant_layers import KQuantLayers
from shared.model.loading.load_runner import load_runner
from shared.model.loading.probes import inexact_pass
from shared.model.runner import Segment

MODELS: dict[str, dict[str, object]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {"num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 256},
    "qwen3": {},
    "mistral": {"num_key_value_heads": 8},
}
TOKENS = [(7 * i) % 400 for i in range(200)]


@pytest.mark.parametrize("family", MODELS)
def test_it_is_near_the_model(family: str, tmp_path: Path) -> None:
    """With biases and norms of queries and keys, in a prefill, a verify, and beside another session; and exact."""
    save_rounded(random_model(family, **MODELS[family]), tmp_path)
    runner = load_runner(tmp_path, "float32", 2, 256)
    assert isinstance(runner.model.model.layers[0], KQuantLayers)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        whole = model(torch.tensor([TOKENS])).logits[0]
    passes: list[list[Segment]] = [
        [Segment(0, 0, TOKENS[:90], 90)],
        [Segment(1, 0, TOKENS[:20], 0), Segment(0, 90, TOKENS[90:95], 5)],
        [Segment(0, 95, TOKENS[95:96], 1)],
        [Segment(0, 96, TOKENS[96:], 104)],
    ]
    found = torch.cat([rows.logits for segments in passes for rows in runner.extend(segments) if len(rows.logits)])
    assert float((found - whole).abs().max()) < 0.15 * float(whole.std())
    assert inexact_pass(runner, 512)[0] == ""


def test_a_row_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs beside it, in blocks of any size, in any slot, in any group, and whatever memory held before."""
    save_rounded(random_model("qwen2"), tmp_path)
    runner = load_runner(tmp_path, "float32", 3, 256)

    def logits(slot: int, sizes: list[int], beside: list[int]) -> torch.Tensor:
        found, start = [], 0
        for size in sizes:
            segments = [Segment(slot, start, TOKENS[start : start + size], size)]
            if beside:
                segments.append(Segment((slot + 1) % 3, 0, beside, 1))
            found.append(runner.extend(segments)[0].logits)
            start += size
        return torch.cat(found)

    expected = logits(0, [1] * 200, [])
    assert torch.equal(logits(1, [200], []), expected)
    assert torch.equal(logits(2, [7, 1, 64, 33, 5, 8, 9, 73], TOKENS[:40]), expected)
    for num_tokens in (1, 37, 64, 95):  # of a block of keys, too
        runner.clear(1)
        runner.copy(2, 1, num_tokens)
        assert torch.equal(runner.extend([Segment(1, num_tokens, TOKENS[num_tokens:], 9)])[0].logits, expected[-9:])
    monkeypatch.setattr(k_quant_layers, "_GROUP_ROWS", 3)
    assert torch.equal(logits(1, [200], []), expected)
    with torch.inference_mode():
        for layer in runner._cache.layers:  # what was left there by others must not matter
            layer.keys.fill_(torch.nan)
            layer.values.fill_(torch.nan)
    assert torch.equal(logits(0, [64, 64, 72], TOKENS[:3]), expected)


def test_memory_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass with no memory left fails alone; and a model's layers find the cache of whoever runs them."""
    save_rounded(random_model("qwen2"), tmp_path)
    runner = load_runner(tmp_path, "float32", 2, 256)
    expected = runner.extend([Segment(0, 0, TOKENS, 200)])[0].logits
    other = CpuRunner(runner.model, 1, 256)
    assert torch.equal(other.extend([Segment(0, 0, TOKENS[:9], 9)])[0].logits, expected[:9])
    assert torch.equal(runner.extend([Segment(0, 199, TOKENS[199:], 1)])[0].logits, expected[199:])
    fresh = load_runner(tmp_path, "float32", 2, 256)
    fresh.extend([Segment(0, 0, TOKENS[:9], 9)])
    with monkeypatch.context() as short:
        short.setattr(k_quant_layers, "program", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            fresh.extend([Segment(0, 0, TOKENS, 200)])
    assert torch.equal(fresh.extend([Segment(0, 0, TOKENS, 200)])[0].logits, expected)


def test_other_layers_are_refused(tmp_path: Path) -> None:
    """A folder with heads that are not computed in whole vectors, however it came to be."""
    save_rounded(random_model("qwen2", head_dim=80, num_attention_heads=16, num_key_value_heads=16), tmp_path)
    with pytest.raises(ModelError, match="layers with silu and heads of 80 numbers are not computed with K-quants"):
        load_runner(tmp_path, "float32", 1, 64)
