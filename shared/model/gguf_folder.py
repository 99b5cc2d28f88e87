"""A GGUF file as a Hugging Face folder: bfloat16 safetensors, config, generation config and tokenizer.

transformers can open a GGUF itself, but takes a minute for it, anew at every start; a folder opens in seconds.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from shared.errors import ModelError


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write `gguf`, its weights dequantized, as the Hugging Face folder `folder`.

    Memory: about twice the bfloat16 weights. Raises ModelError for a file that transformers cannot read, or that does
    not hold all of its model's weights.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # What the readers of a damaged or foreign file raise.
    except (ValueError, KeyError, IndexError, NotImplementedError, OSError, RuntimeError) as error:
        raise ModelError(f"{gguf}: not a GGUF that can be converted: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"{gguf}: holds no weights for {', '.join(missing[:4])}")
    # Otherwise the folder would be opened as a quantized model.
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
