"""Layers of 8 bits in few calls: near what torch's own operations make of them, and each row from that row alone."""

from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import structlog
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from shared.model.checkpoints.int8_folder import save_int8
from shared.model.checkpoints.rotation import rotated
from shared.model.devices.cpu.compiled_code import kept_code, row_loops
from shared.model.devices.cpu.rounded_layer import RoundedLayer
from shared.model.loading import load_runner as loading
from shared.model.loading.probes import inexact_pass
from shared.model.runner import Segment

SIZES = {"hidden_size": 96, "intermediate_size": 176, "num_hidden_layers": 3, "vocab_size": 500, "head_dim": 16}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2}
MODELS = {"llama": {"attention_bias": True, "mlp_bias": True}, "qwen2": {}, "qwen3": {}, "mistral": {}}
TOKENS = [(7 * i) % 400 for i in range(100)]


@pytest.mark.parametrize("family", MODELS)
def test_it_is_near_the_layer(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With biases and norms of queries and keys, in a prefill, a verify, and beside another session; and exact."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES, **HEADS, **MODELS[family], sliding_window=None)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    save_int8(model, tmp_path)
    runners = [loading.load_runner(tmp_path, "float32", 2, 128)]
    with monkeypatch.context() as without:
        without.setattr("shared.model.devices.cpu.rounded_layer.fuse_rounded", lambda _: None)
        runners.append(loading.load_runner(tmp_path, "float32", 2, 128))
    kinds = [type(runner.model.model.layers[0]) for runner in runners]
    assert kinds[0] is RoundedLayer is not kinds[1]
    passes: list[list[Segment]] = [
        [Segment(0, 0, TOKENS[:90], 90)],
        [Segment(1, 0, TOKENS[:20], 1), Segment(0, 90, TOKENS[90:95], 5)],
        [Segment(0, 95, TOKENS[95:96], 1)],
    ]
    for segments in passes:
        ours, theirs = (torch.cat([rows.logits for rows in runner.extend(segments)]) for runner in runners)
        assert float((ours - theirs).abs().max()) < 0.1 * float(theirs.std())
    assert inexact_pass(runners[0], 500)[0] == ""


def test_steps() -> None:
    """The largest magnitude is the last level, halves go to even, and what is no number makes its own row none."""
    rows = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    rows[1] = 0
    rows[2, 7] = np.nan
    rows[3] = 0
    rows[3, :4] = 127, 0.5, -1.5, 2.5
    steps, factors = np.empty_like(rows), np.empty(5, np.float32)
    row_loops.normed_to_steps(rows, np.float32(1e-6), np.float32(127), steps, factors)
    assert np.abs(steps[[0, 3, 4]]).max(1).tolist() == [127] * 3
    assert not steps[1].any()
    assert np.isfinite(factors).tolist() == [True, True, False, True, True]
    assert steps[3, :4].tolist() == [127, 0, -2, 2]
    normed = rows[4] / np.sqrt((rows[4] ** 2).mean())
    np.testing.assert_allclose(steps[4] * factors[4], normed, atol=np.abs(normed).max() / 250)


@pytest.mark.parametrize(("width", "block"), [(48, 16), (1280, 128), (35, 1)])
def test_blocks_are_turned(width: int, block: int) -> None:
    """As the weights behind them were."""
    rng = np.random.default_rng(0)
    gate, up = (rng.normal(size=(3, width)).astype(np.float32) for _ in range(2))
    steps, factors = np.empty_like(gate), np.empty(3, np.float32)
    products, ones, zeros = np.concatenate([gate, up], 1), np.ones(3, np.float32), np.zeros(2 * width, np.float32)
    row_loops.gated_to_steps(gate, products, ones, zeros, block, np.float32(127), steps, factors)
    expected = rotated(torch.from_numpy(gate * up), block).numpy()
    np.testing.assert_allclose(steps * factors[:, None], expected, atol=np.abs(expected).max() / 250)


def tiny(number: np.float32) -> np.float32:
    """Double a number."""
    return number + number


def test_a_cache_that_is_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is kept; where its files are broken, it is compiled all the same, and that is said."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    said = []
    for _ in range(2):
        loop: Any = numba.njit(tiny)
        monkeypatch.setattr(kept_code, "_loops", [loop])
        with structlog.testing.capture_logs() as logs:
            kept_code.prepare(partial(loop, np.float32(1)))
        said.append([line["event"] for line in logs])
        assert loop.signatures
        for path in (tmp_path / "loops").rglob("*.nbi"):
            path.write_bytes(b"")
    assert said == [[], ["compiled loops are not kept"]]
