"""A GGUF file as a Hugging Face folder: bfloat16 safetensors, config, generation config and tokenizer.

transformers can open a GGUF itself, but takes a minute at every start; a folder opens in seconds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import gguf as gguf_library
import torch
from gguf import GGMLQuantizationType, GGUFReader, Keys
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from shared.errors import ModelError
from shared.model.checkpoints.gguf_rope import take_over_rope
from shared.model.checkpoints.int8_folder import save_int8
from shared.model.checkpoints.k_quant_folder import refuse_other_forms, save_k_quants
from shared.model.checkpoints.supported import WINDOW, refuse_unserved, refusing
from shared.model.settings import Quant

END_KEYS = (Keys.Tokenizer.EOS_ID, Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID)  # end of sequence, turn, message
# Files often declare only the end of a turn. Other tokens that end a text are recognized by name, as in llama.cpp.
END_NAMES = {"<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>"}


def convert_gguf(gguf: Path, folder: Path, *, quant: Quant = "none") -> None:
    """Write `gguf` as the Hugging Face folder `folder`, its weights in bfloat16, rounded anew, or as they are.

    Memory: about twice the bfloat16 weights. Raises a one-sentence ModelError: by the header alone, before a weight is
    read, for a file that is damaged or cut and for a model that cannot be served; later for one that lacks weights.
    """
    with _read_once() as read:
        architecture = _refuse_by_header(gguf, read, quant)
        with refusing(str(gguf), "cannot be converted"):
            model, loading = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            end_token_ids = _end_token_ids(read(gguf), tokenizer.get_vocab())
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"{gguf}: holds no weights for {', '.join(missing[:4])}")
    take_over_rope(read(gguf), model.config, str(gguf))
    # Otherwise the folder would be opened as a quantized model.
    model.config.__dict__.pop("quantization_config", None)
    model.generation_config.eos_token_id = end_token_ids
    if quant == "int8":
        save_int8(model, folder)
    elif quant == "gguf":
        with refusing(str(gguf), "its blocks are not understood"):
            save_k_quants(model, read(gguf), architecture, folder, str(gguf))
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def is_rounded(gguf: Path) -> bool:
    """Return whether some of the file's weights have fewer than 16 bits. Raises ModelError."""
    whole = {GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16}
    with refusing(str(gguf), "not a whole GGUF file"):
        return any(tensor.tensor_type not in whole for tensor in GGUFReader(gguf).tensors)


def _refuse_by_header(gguf: Path, read: Callable[[Path], GGUFReader], quant: Quant) -> str:
    """Return the architecture by llama.cpp's name."""
    with refusing(str(gguf), "not a whole GGUF file"):
        fields = read(gguf).fields
        architecture = str(fields[Keys.General.ARCHITECTURE].contents())
    with refusing(str(gguf), f"a model of architecture {architecture} cannot be converted"):
        config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    name = f"{gguf} ({architecture})"
    refuse_unserved(config, name)
    # transformers does not take over every family's window.
    with refusing(name, "its header is not understood"):
        keys = (key.format(arch=architecture) for key in (Keys.Attention.SLIDING_WINDOW, Keys.LLM.CONTEXT_LENGTH))
        window, length = (fields[key].contents() if key in fields else 0 for key in keys)
        if 0 < window < length:
            raise ModelError(f"{name}: {WINDOW}")
    if quant == "gguf":
        refuse_other_forms(read(gguf), config, str(gguf))
    return architecture


def _end_token_ids(gguf: GGUFReader, vocabulary: dict[str, int]) -> list[int]:
    """Return every token that ends a text or a turn, in order of ids."""
    listed = {int(gguf.fields[key].contents()) for key in END_KEYS if key in gguf.fields}
    return sorted(listed | {vocabulary[name] for name in END_NAMES & vocabulary.keys()})


@contextmanager
def _read_once() -> Iterator[Callable[[Path], GGUFReader]]:
    """Read each file once in the block: transformers alone reads it three times, each as long as dequantizing it."""
    read = cache(GGUFReader)
    gguf_library.GGUFReader = lambda path: read(Path(path))
    try:
        yield read
    finally:
        gguf_library.GGUFReader = GGUFReader
