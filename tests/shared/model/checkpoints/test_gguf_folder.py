"""GGUF files as folders."""

import json
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from gateway.text.tokenizer import ChatTokenizer
from shared.errors import ModelError
from shared.model.checkpoints.gguf_folder import convert_gguf
from shared.model.checkpoints.pairs import DRAFT, resolve_model
from shared.model.checkpoints.supported import STATE, WINDOW

GGUF_LAYER = {  # the layer's tensors under the names that llama.cpp gives them
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def _write_gguf(folder: Path, path: Path, *, without: str = "", end_token_ids: dict[str, int] | None = None) -> None:
    """Write a Qwen2 folder as a GGUF file as llama.cpp does, less the tensor `without`, with further end tokens."""
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    names = {f"blk.{i}.{name}": f"model.layers.{i}.{ours}" for i in range(2) for name, ours in GGUF_LAYER.items()}
    names |= {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    padding = [f"[PAD{i}]" for i in range(len(tokenizer), config.vocab_size)]
    model = tokenizer.backend_tokenizer.to_str()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*tokenizer.convert_ids_to_tokens(range(len(tokenizer))), *padding])
    writer.add_token_merges([" ".join(merge) for merge in json.loads(model)["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for key, token_id in (end_token_ids or {}).items():
        writer.add_uint32(key, token_id)
    for name, weight in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        ours, kind = name.rsplit(".", 1)
        theirs = f"{next(key for key, value in names.items() if value == ours)}.{kind}"
        if theirs == without:
            continue
        values = weight.numpy()
        if kind == "weight" and values.ndim == 2:
            quantized = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(theirs, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(theirs, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_becomes_the_folder_of_its_values(
    toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A q8 GGUF becomes a folder, once, whose weights are its dequantized values in bfloat16, bit for bit."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "toy.gguf"
    _write_gguf(toy[DRAFT], path)
    folder = resolve_model(str(path))
    own = AutoModelForCausalLM.from_pretrained(toy[DRAFT]).state_dict()
    converted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    assert own.keys() == converted.keys()
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, weight in own.items():
        matrix = weight.ndim == 2
        values = gguf.dequantize(gguf.quantize(weight.numpy(), q8), q8) if matrix else weight.numpy()
        assert torch.equal(converted[name], torch.from_numpy(values).bfloat16()), name
    assert AutoTokenizer.from_pretrained(folder)("the road")["input_ids"]
    changed = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(str(path)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == changed


def test_all_end_tokens_are_listed(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A reply ends at each end token that the GGUF names, and at <|endoftext|>, which Qwen's files do not name."""
    ends = {gguf.Keys.Tokenizer.EOT_ID: 70, gguf.Keys.Tokenizer.EOM_ID: 80}
    for name, further in (("qwen", {}), ("three", ends)):
        _write_gguf(toy[DRAFT], tmp_path / f"{name}.gguf", end_token_ids=further)
        convert_gguf(tmp_path / f"{name}.gguf", tmp_path / name)
        tokenizer = ChatTokenizer.load(str(tmp_path / name))
        specials = {tokenizer.encode(text)[0] for text in ("<|endoftext|>", "<|im_end|>")}
        assert len(specials) == 2
        assert tokenizer.stop_token_ids == specials | set(further.values())


def test_bad_gguf_is_refused_by_name(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A GGUF that lacks a tensor, one that is cut in its weights or its header, and a file that is none."""
    whole, bad = tmp_path / "whole.gguf", tmp_path / "bad.gguf"
    _write_gguf(toy[DRAFT], bad, without="blk.1.ffn_up.weight")
    with pytest.raises(ModelError, match=r"bad\.gguf.*layers\.1\.mlp\.up_proj"):
        convert_gguf(bad, tmp_path / "out")
    _write_gguf(toy[DRAFT], whole)
    content = whole.read_bytes()
    for damaged in (content[:-10_000], content[:5_000], content[:30], b"", b"no model at all" * 100):
        bad.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"bad\.gguf: not a whole GGUF file \(.+\)$"):
            convert_gguf(bad, tmp_path / "out")


UNSERVED: list[tuple[str, dict[str, int], str]] = [
    ("gemma3", {"attention.sliding_window": 512}, WINDOW),
    ("gemma2", {}, WINDOW),  # whose layers have a window, whatever the file says
    ("llama", {"attention.sliding_window": 512}, WINDOW),
    ("mamba", {}, STATE),
    ("qwen35", {}, "a model of architecture qwen35 cannot be converted (KeyError: "),  # its file lacks keys
    ("rwkv9", {}, "a model of architecture rwkv9 cannot be converted (ValueError: "),
]


@pytest.mark.parametrize(("architecture", "keys", "reason"), UNSERVED, ids=[name for name, *_ in UNSERVED])
def test_unserved_models_are_refused_by_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, keys: dict[str, int], reason: str
) -> None:
    """In words without the name of a class; this file has no weights, and nothing is left in the cache."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "given.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(6)
    writer.add_context_length(2048)
    for key, value in keys.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError) as error:
        resolve_model(str(path))
    assert reason in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not [made for made in (tmp_path / "cache" / "models").iterdir() if made.is_dir()]
