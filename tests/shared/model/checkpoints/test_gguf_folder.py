"""GGUF files as folders."""

from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from gateway.text.tokenizer import ChatTokenizer
from shared.errors import ModelError
from shared.model.checkpoints.gguf_folder import convert_gguf
from shared.model.checkpoints.gguf_rope import llama3_factors
from shared.model.checkpoints.pairs import DRAFT, resolve_model
from shared.model.checkpoints.supported import STATE, WINDOW


def test_gguf_becomes_the_folder_of_its_values(
    toy: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A q8 GGUF becomes a folder, once, whose weights are its dequantized values in bfloat16, bit for bit."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "toy.gguf"
    write_gguf(toy[DRAFT], path)
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
        write_gguf(toy[DRAFT], tmp_path / f"{name}.gguf", end_token_ids=further)
        convert_gguf(tmp_path / f"{name}.gguf", tmp_path / name)
        tokenizer = ChatTokenizer.load(str(tmp_path / name))
        specials = {tokenizer.encode(text)[0] for text in ("<|endoftext|>", "<|im_end|>")}
        assert len(specials) == 2
        assert tokenizer.stop_token_ids == specials | set(further.values())


def test_bad_gguf_is_refused_by_name(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A GGUF that lacks a tensor, one that is cut in its weights or its header, and a file that is none."""
    whole, bad = tmp_path / "whole.gguf", tmp_path / "bad.gguf"
    write_gguf(toy[DRAFT], bad, without="blk.1.ffn_up.weight")
    with pytest.raises(ModelError, match=r"bad\.gguf.*layers\.1\.mlp\.up_proj"):
        convert_gguf(bad, tmp_path / "out")
    write_gguf(toy[DRAFT], whole)
    content = whole.read_bytes()
    for damaged in (content[:-10_000], content[:5_000], content[:30], b"", b"no model at all" * 100):
        bad.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"bad\.gguf: not a whole GGUF file \(.+\)$"):
            convert_gguf(bad, tmp_path / "out")


def test_llama_3_keeps_its_positions(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """The file holds factors, of which the configuration makes the same; others are refused."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(toy[DRAFT]).save_pretrained(tmp_path / "model")
    factors = llama3_factors(500000.0, 64, 8).astype(np.float32)
    write = partial(write_gguf, tmp_path / "model", tmp_path / "given.gguf", architecture="llama")
    write(rope_factors=factors)
    convert_gguf(tmp_path / "given.gguf", tmp_path / "out")
    rotary = LlamaForCausalLM.from_pretrained(tmp_path / "out").model.rotary_emb
    plain = LlamaForCausalLM.from_pretrained(tmp_path / "model").model.rotary_emb
    torch.testing.assert_close(plain.inv_freq / rotary.inv_freq, torch.from_numpy(factors), rtol=1e-4, atol=0)
    write(rope_factors=factors[::-1].copy())
    with pytest.raises(ModelError, match=r"given\.gguf: rope_freqs\.weight scales positions in a way"):
        convert_gguf(tmp_path / "given.gguf", tmp_path / "other")


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
