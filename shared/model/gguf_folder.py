"""A GGUF file as a Hugging Face folder: bfloat16 safetensors, config, generation config and tokenizer.

transformers opens a GGUF itself, but slowly and anew at every start. Here its own tables are used (config, tokenizer,
tensor names, per-architecture layouts) and only the bulk work is different: rows are dequantized by the `gguf` library
on every core. The weights are bit for bit those of `from_pretrained(gguf_file=...)` in float32, then `.to(bfloat16)`.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor, dequantize
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
    load_gguf_checkpoint,
)
from transformers.models.auto.configuration_auto import AutoConfig

CHUNK_ELEMENTS = 1 << 21  # 8 MiB of float32: the dequantizer's temporaries stay small and every core has work
END_OF_TEXT_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")

logger = logging.getLogger(__name__)


class UnsupportedGgufError(ValueError):
    """The GGUF holds something that transformers' converter has no place for; the message names it."""


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write `gguf` as the Hugging Face folder `folder`, which appears only when it is complete.

    Two processes may convert at once: each works in its own temporary folder and the first rename wins.
    Memory: the bfloat16 weights plus the largest tensor in float32, about twice over.

    Raises:
        UnsupportedGgufError: transformers cannot map the architecture, or a weight of the model is not in the file.
    """
    with new_folder(folder) as tmp:
        try:
            parsed = load_gguf_checkpoint(str(gguf))["config"]
            config = AutoConfig.for_model(**parsed)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise UnsupportedGgufError(f"{gguf}: {error}") from error
        reader = GGUFReader(gguf)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        missing, _ = model.load_state_dict(_weights(reader, model, parsed), strict=False, assign=True)
        model.tie_weights()
        if left := sorted(set(missing) - set(model.all_tied_weights_keys)):
            raise UnsupportedGgufError(f"{gguf}: no tensor in the file for {', '.join(left[:4])}")
        if model.generation_config is not None:
            model.generation_config.eos_token_id = _end_of_text_ids(reader) or model.generation_config.eos_token_id
        model.save_pretrained(tmp)
        PreTrainedTokenizerFast.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(tmp)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `folder` and rename it to `folder` if the block ends well.

    When another process was first, its folder stays and this one is dropped.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as tmp:
        inner = Path(tmp) / folder.name  # renamed as a whole, so that TemporaryDirectory has its own to remove
        inner.mkdir()
        yield inner
        try:
            inner.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            logger.info("%s was made by another process meanwhile", folder)


def _weights(reader: GGUFReader, model: PreTrainedModel, parsed: dict[str, object]) -> dict[str, torch.Tensor]:
    architecture = reader.fields["general.architecture"].contents()
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=parsed)
    names = get_gguf_hf_weights_map(model, processor)
    # Processors of mixture-of-experts models put their tensors in here themselves and return no name.
    placed: dict[str, dict[str, torch.Tensor]] = {"tensors": {}}
    size = sum(int(tensor.n_elements) for tensor in reader.tensors)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=size, desc=f"converting {model.config.model_type}", unit="param", unit_scale=True) as progress,
    ):
        for tensor in reader.tensors:
            result = processor.process(
                weights=_dequantize(tensor, pool), name=tensor.name, tensor_key_mapping=names, parsed_parameters=placed
            )
            if result.name in names:
                weight = torch.from_numpy(np.ascontiguousarray(result.weights))
                placed["tensors"][names[result.name]] = weight.to(torch.bfloat16)
            progress.update(int(tensor.n_elements))
    return {name: weight.to(torch.bfloat16) for name, weight in placed["tensors"].items()}


def _dequantize(tensor: ReaderTensor, pool: ThreadPoolExecutor) -> NDArray[np.float32]:
    """The tensor in float32, shape `[..., columns]` as torch has it."""
    shape = tuple(int(size) for size in reversed(tensor.shape))
    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    out = np.empty((rows.shape[0], shape[-1]), dtype=np.float32)
    step = max(1, CHUNK_ELEMENTS // shape[-1])

    def fill(start: int) -> None:
        out[start : start + step] = dequantize(rows[start : start + step], tensor.tensor_type)

    list(pool.map(fill, range(0, rows.shape[0], step)))
    return out.reshape(shape)


def _end_of_text_ids(reader: GGUFReader) -> list[int]:
    fields = [reader.fields.get(f"tokenizer.ggml.{key}") for key in END_OF_TEXT_KEYS]
    return list(dict.fromkeys(int(field.contents()) for field in fields if field is not None))
