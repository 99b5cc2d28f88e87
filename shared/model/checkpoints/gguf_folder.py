"""A GGUF file as a Hugging Face folder: bfloat16 safetensors, config, generation config and tokenizer.

transformers can open a GGUF itself, but takes a minute at every start; a folder opens in seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import gguf as gguf_library
import torch
from gguf import GGUFReader, Keys
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from shared.errors import ModelError

END_KEYS = (Keys.Tokenizer.EOS_ID, Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID)  # end of sequence, turn, message
# Files often declare only the end of a turn. Other tokens that end a text are recognized by name, as in llama.cpp.
END_NAMES = {"<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>"}


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write `gguf`, its weights dequantized, as the Hugging Face folder `folder`.

    Memory: about twice the bfloat16 weights. Raises ModelError for a file that transformers cannot read, or that lacks
    some of its model's weights.
    """
    try:
        with _read_once():
            model, loading = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            end_token_ids = _end_token_ids(gguf, tokenizer.get_vocab())
    # The errors that a damaged or foreign file makes the readers raise.
    except (ValueError, KeyError, IndexError, NotImplementedError, OSError, RuntimeError) as error:
        raise ModelError(f"{gguf}: not a GGUF that can be converted: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"{gguf}: holds no weights for {', '.join(missing[:4])}")
    # Otherwise the folder would be opened as a quantized model.
    model.config.__dict__.pop("quantization_config", None)
    model.generation_config.eos_token_id = end_token_ids
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _end_token_ids(gguf: Path, vocabulary: dict[str, int]) -> list[int]:
    """Return every token that ends a text or a turn, in order of ids."""
    fields = gguf_library.GGUFReader(gguf).fields
    listed = {int(fields[key].contents()) for key in END_KEYS if key in fields}
    return sorted(listed | {vocabulary[name] for name in END_NAMES & vocabulary.keys()})


@contextmanager
def _read_once() -> Iterator[None]:
    """Read each file once in the block: transformers alone reads it three times, each as long as dequantizing it."""
    read = cache(GGUFReader)
    gguf_library.GGUFReader = lambda path: read(Path(path))
    try:
        yield
    finally:
        gguf_library.GGUFReader = GGUFReader
