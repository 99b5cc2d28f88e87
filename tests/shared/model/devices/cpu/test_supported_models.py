"""Which families of models are served, how long their sequences may be, and in which words the others are refused.

Models are random, of two layers, by transformers' own code.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
import transformers
from services import FORKS, run_module
from torch.nn import functional
from transformers import AutoModelForCausalLM

from shared.errors import ModelError
from shared.model.checkpoints.supported import own_length, served_config
from shared.model.devices.cpu.experts import BLOCK_ROWS
from shared.model.loading.load_runner import load_runner
from shared.model.runner import Segment

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300} | SPECIAL
PLAIN = HEADS | {"intermediate_size": 128, "max_position_embeddings": 512}
GROUPED = PLAIN | {"num_key_value_heads": 2}
EXPERTS = GROUPED | {"moe_intermediate_size": 32, "num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2}
GPT2 = {"vocab_size": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512} | SPECIAL
STATES = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2} | SPECIAL
DEEPSEEK = PLAIN | {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 2,
    "topk_group": 1,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 128,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}

MIXTURES: list[tuple[str, dict[str, Any]]] = [
    ("Mixtral", EXPERTS),
    ("Qwen3Moe", EXPERTS | {"head_dim": 16}),
    ("Olmoe", EXPERTS),
    ("GraniteMoe", EXPERTS),
    ("DeepseekV3", DEEPSEEK),
]
SERVED: list[tuple[str, dict[str, Any]]] = [
    ("Llama", GROUPED),
    ("Mistral", GROUPED | {"sliding_window": None}),
    ("Qwen2", GROUPED | {"sliding_window": 32}),  # but use_sliding_window is off
    ("Qwen3", GROUPED | {"head_dim": 16}),
    ("Phi", GROUPED),
    ("Gemma", GROUPED | {"head_dim": 16}),
    ("GPT2", GPT2),
    ("GPTNeoX", PLAIN),
    ("OPT", PLAIN | {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    ("Cohere", GROUPED),
    ("Olmo2", GROUPED),
    ("Granite", GROUPED),
    ("SmolLM3", GROUPED),
    ("Starcoder2", GROUPED | {"sliding_window": None}),
    *MIXTURES,
]
WINDOW, STATE, ALIBI = "window of the last tokens", "state from token to token", "ALiBi"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Mistral", GROUPED | {"sliding_window": 32}, WINDOW),
    ("Qwen2", GROUPED | {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}, WINDOW),
    ("Phi3", GROUPED | {"sliding_window": 32}, WINDOW),
    ("Gemma2", GROUPED, WINDOW),
    ("Gemma2", GROUPED | {"layer_types": ["full_attention"] * 2}, "soft cap"),
    ("Gemma3Text", GROUPED, WINDOW),
    ("GptOss", EXPERTS, WINDOW),
    ("Llama4Text", EXPERTS, WINDOW),
    ("Mamba", STATES, STATE),
    ("Mamba2", STATES | {"num_heads": 8, "head_dim": 16}, STATE),
    ("Rwkv", STATES, STATE),
    ("Jamba", GROUPED | {"attn_layer_period": 2, "attn_layer_offset": 1}, STATE),
    ("Qwen3Next", EXPERTS, STATE),
    ("MiniMax", EXPERTS | {"layer_types": ["linear_attention", "full_attention"]}, STATE),
    ("Bloom", {"vocab_size": 300, "hidden_size": 64, "n_layer": 2, "n_head": 4}, ALIBI),
    ("Mpt", {"vocab_size": 300, "d_model": 64, "n_layers": 2, "n_heads": 4}, ALIBI),
    ("Falcon", GROUPED | {"alibi": True}, ALIBI),
    ("Falcon", GROUPED, "attention cannot be replaced"),
    ("StableLm", GROUPED, "attention cannot be replaced"),
    ("GPTJ", GPT2 | {"rotary_dim": 8}, "attention cannot be replaced"),
    ("JetMoe", {name: EXPERTS[name] for name in EXPERTS if name != "num_attention_heads"}, "experts group the rows"),
    ("T5", {"vocab_size": 300, "d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 4, "d_kv": 16}, "encoder"),
    ("Bert", PLAIN, "encoder, which fills gaps"),
    ("Llava", {}, "more than text"),
    ("Qwen2VL", {}, "more than text"),
    ("ViT", {}, "no model that continues a text"),
]


def save_model(folder: Path, family: str, options: dict[str, Any]) -> Path:
    """Save a random model of this family, and return its folder."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(getattr(transformers, f"{family}Config")(**options)).save_pretrained(folder)
    return folder


def names(family: object) -> str | None:
    """Name cases by family alone."""
    return family if isinstance(family, str) else ""


@pytest.mark.parametrize(("family", "options"), SERVED, ids=names)
def test_served(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    """In prefill and verify beside another session, the logits are those of transformers' own pass."""
    runner = load_runner(save_model(tmp_path, family, options), "float32", 2, 400)
    tokens = random.Random(0).choices(range(300), k=40)
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path)(torch.tensor([tokens])).logits[0]  # [40, V]
    prefilled = runner.extend([Segment(1, 0, tokens[:30], 30)])[0].logits
    verified = runner.extend([Segment(0, 0, tokens[:7], 0), Segment(1, 30, tokens[30:], 10)])[1].logits
    torch.testing.assert_close(torch.cat([prefilled, verified]), expected, rtol=1e-3, atol=1e-4)
    assert runner.max_length == 400


@pytest.mark.parametrize(("family", "options"), [SERVED[0], SERVED[6], *MIXTURES[:1]], ids=names)
def test_served_in_bfloat16(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    """The loader itself compares with transformers' logits."""
    assert load_runner(save_model(tmp_path, family, options), "bfloat16", 2, 400).max_length == 400


@pytest.mark.parametrize(("family", "options", "gist"), REFUSED, ids=names)
def test_refused(family: str, options: dict[str, Any], gist: str, tmp_path: Path) -> None:
    """By the configuration alone: there are no weights in this folder."""
    config = getattr(transformers, f"{family}Config")(**options)
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=gist) as refusal:
        load_runner(tmp_path, "float32", 2, 400)
    assert str(refusal.value).startswith(f"{config.model_type}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("family", "options", "gist"),
    [("Nemotron", GROUPED, "cache and attention"), ("HunYuanMoEV1", EXPERTS | {"head_dim": 16}, "linear layers")],
    ids=names,
)
def test_refused_for_its_code(family: str, options: dict[str, Any], gist: str, tmp_path: Path) -> None:
    """What the model's own code raises when it is tried is a sentence, too."""
    with pytest.raises(ModelError, match=f"its code does not run with our {gist}"):
        load_runner(save_model(tmp_path, family, options), "float32", 2, 400)


@pytest.mark.parametrize("content", ["{}", "{", '{"model_type": "none_such"}'])
def test_no_configuration(content: str, tmp_path: Path) -> None:
    """Nor is a file that is no configuration a traceback."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match="its configuration cannot be read"):
        served_config(tmp_path)


def test_no_weights(tmp_path: Path) -> None:
    """Nor are weights that are not there."""
    transformers.LlamaConfig(**GROUPED).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="llama: transformers does not load it"):
        load_runner(tmp_path, "float32", 2, 400)


def test_refused_by_the_service(tmp_path: Path) -> None:
    """As a process of its own, it ends with one line."""
    transformers.Gemma2Config(**GROUPED).save_pretrained(tmp_path)
    log = tmp_path / "log"
    process = FORKS.Process(target=run_module, args=(log, None, "target_service", f"--model={tmp_path}"))
    process.start()
    process.join(60)
    assert process.exitcode == 1
    assert log.read_text().splitlines()[-1].startswith("setting model: gemma2: its layers keep only a window")
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(("family", "options"), MIXTURES, ids=names)
def test_experts_have_blocks_of_rows(
    family: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No product of an expert or a router has as many rows as the pass happens to bring it; so its rows are exact."""
    runner = load_runner(save_model(tmp_path, family, options), "float32", 4, 400)
    multiply: Callable[..., torch.Tensor] = functional.linear
    num_rows = []

    def counted(rows: torch.Tensor, *weights: torch.Tensor | None) -> torch.Tensor:
        num_rows.append(rows.numel() // rows.shape[-1])
        return multiply(rows, *weights)

    monkeypatch.setattr(functional, "linear", counted)
    tokens = random.Random(0).choices(range(300), k=72)
    prefilled = runner.extend([Segment(0, 0, tokens, 72)])[0].logits
    for start, size, beside in ((60, 1, 0), (60, 5, 7), (33, 9, 40), (70, 2, 1), (3, 60, 9)):
        others = [Segment(3, 0, tokens[:beside], 0)] if beside else []
        logits = runner.extend([Segment(0, start, tokens[start : start + size], size), *others])[0].logits
        assert torch.equal(logits, prefilled[start : start + size])
    assert set(num_rows) == {BLOCK_ROWS}


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Phi3", GROUPED | {"sliding_window": None, "rope_parameters": LONGROPE}),
        ("Llama", GROUPED | {"max_position_embeddings": 128, "rope_parameters": DYNAMIC}),
    ],
    ids=names,
)
def test_rotary_factors_of_the_whole_pass(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Sequences end where the factors would change, so a session's logits are the same beside one at the far end."""
    with structlog.testing.capture_logs() as logs:
        runner = load_runner(
            save_model(tmp_path, family, options | {"original_max_position_embeddings": 128}), "float32", 2, 400
        )
    assert runner.max_length == 128
    assert [line["max_length"] for line in logs if line["event"] == "sequences are cut"] == [128] * (family == "Phi3")
    near, far = Segment(0, 0, [5, 6, 7], 3), Segment(1, 120, [9] * 8, 1)
    alone = runner.extend([near])[0].logits
    assert torch.equal(runner.extend([near, far])[0].logits, alone)


def test_rotary_factors_by_type_of_layer() -> None:
    """The shortest of them counts."""
    config = transformers.LlamaConfig(**GROUPED)
    config.rope_parameters = {"full_attention": LONGROPE, "sliding_attention": {"rope_type": "default"}, "none": None}
    assert own_length(config, 400) == 128
    assert own_length(config, 100) == 100
