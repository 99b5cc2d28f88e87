"""GGUF files of models of the Llama family, as llama.cpp writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

Quantize = Callable[[str, NDArray[np.float32]], tuple[NDArray[np.uint8], gguf.GGMLQuantizationType]]

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


def in_8_bits(_: str, values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], gguf.GGMLQuantizationType]:
    """Return a tensor as Q8_0."""
    return gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0


def write_gguf(
    folder: Path,
    path: Path,
    *,
    without: str = "",
    end_token_ids: dict[str, int] | None = None,
    architecture: str = "qwen2",
    quantize: Quantize = in_8_bits,
    rope_factors: NDArray[np.float32] | None = None,
) -> None:
    """Write a folder of the Llama family as a GGUF file as llama.cpp does.

    Less the tensor `without`, with further end tokens, its matrices as `quantize` makes them of their name and values.
    """
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    names = {
        f"blk.{i}.{name}": f"model.layers.{i}.{ours}"
        for i in range(config.num_hidden_layers)
        for name, ours in GGUF_LAYER.items()
    }
    names |= {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    writer = gguf.GGUFWriter(path, architecture)
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
    heads_of = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        ours, kind = name.rsplit(".", 1)
        theirs = f"{next(key for key, value in names.items() if value == ours)}.{kind}"
        if theirs == without:
            continue
        values = weight.numpy()
        if kind == "weight" and values.ndim == 2:
            if architecture == "llama" and (heads := heads_of.get(ours.rsplit(".", 1)[-1])):
                halves = values.reshape(heads, 2, -1, values.shape[1])  # llama.cpp has them in turns
                values = halves.swapaxes(1, 2).reshape(values.shape)
            quantized, form = quantize(theirs, values)
            writer.add_tensor(theirs, quantized, raw_dtype=form)
        else:
            writer.add_tensor(theirs, values)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
