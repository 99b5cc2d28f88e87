"""A model with the K-quants of its .gguf file as a Hugging Face folder: nothing is rounded again."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGUFReader, dequantize, get_tensor_name_map
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from shared.errors import ModelError
from shared.model.attention_sizes import head_dim
from shared.model.checkpoints.int8_folder import save_weights
from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.k_quant_models import set_linear
from shared.model.checkpoints.k_quants import HEAD_GRAIN, K_QUANTS, LANES, KQuant, laid_out
from shared.model.checkpoints.pairs import K_QUANT
from shared.model.checkpoints.supported import FAMILY

_COMPARED = 64  # outputs of each layer whose weights are compared


def refuse_other_forms(reader: GGUFReader, config: PretrainedConfig, name: str) -> None:
    """Raise ModelError for a file whose linear layers are not all K-quants, and for layers that are not ours."""
    problem = ""
    if config.model_type not in FAMILY:
        problem = f"models of type {config.model_type}"
    elif config.hidden_act != "silu":
        problem = f"layers with {config.hidden_act}"
    elif head_dim(config) % HEAD_GRAIN:
        problem = f"heads of {head_dim(config)} numbers"
    if problem:
        raise ModelError(f"{name}: {problem} are not computed with a file's own blocks")
    tied = not any(tensor.name == "output.weight" for tensor in reader.tensors)
    for tensor in reader.tensors:
        if tensor.data.ndim == 2 and (tied or tensor.name != "token_embd.weight"):
            _form(tensor, name)


def _form(tensor: Any, name: str) -> KQuant:
    form = K_QUANTS.get(tensor.tensor_type.name)
    if form is None:
        raise ModelError(f"{name}: {tensor.name} is {tensor.tensor_type.name}, and not of {', '.join(K_QUANTS)}")
    if len(tensor.data) % LANES:
        raise ModelError(f"{name}: {tensor.name} has {len(tensor.data)} outputs, which is no multiple of {LANES}")
    return form


def save_k_quants(model: PreTrainedModel, reader: GGUFReader, architecture: str, folder: Path, name: str) -> None:
    """Write the model with the weights of the file's linear layers as the file has them; the model is used up.

    Raises ModelError if they are not those of the model.
    """
    config, forms = model.config, dict[str, str]()
    tensors = {tensor.name.removesuffix(".weight"): tensor for tensor in reader.tensors}
    tensors.setdefault("output", tensors["token_embd"])  # tied
    family = next(arch for arch, of in MODEL_ARCH_NAMES.items() if of == architecture)
    names = get_tensor_name_map(family, config.num_hidden_layers)
    linears = {place: module for place, module in model.named_modules() if isinstance(module, nn.Linear)}
    for place, linear in linears.items():
        tensor = tensors[names.get_name(place)]
        form = _form(tensor, name)
        layer = KQuantLinear.empty(linear.in_features, linear.out_features, linear.bias, form)
        tiles = laid_out(_in_order(tensor, linear, head_dim(config), f"{name}: {tensor.name}"), form)
        layer.weight = nn.Parameter(tiles, requires_grad=False)
        set_linear(model, place, layer)
        forms[place] = form.name
    config.tie_word_embeddings = False
    config.quantization_config = {"quant_method": K_QUANT, "forms": forms}
    save_weights(model, folder)


def _in_order(tensor: Any, linear: nn.Linear, of_head: int, name: str) -> NDArray[np.uint8]:
    """Return a tensor's outputs in the model's order: llama.cpp interleaves the halves of some heads. [out, bytes].

    Raises ModelError if neither order is the model's.
    """
    raw: NDArray[np.uint8] = tensor.data
    some = np.linspace(0, len(raw) - 1, _COMPARED, dtype=np.int64)
    weight = linear.weight.detach()[torch.from_numpy(some)]  # [_COMPARED, in]
    orders = [np.arange(len(raw))]
    if len(raw) % of_head == 0:
        orders.append(np.arange(len(raw)).reshape(-1, of_head // 2, 2).swapaxes(1, 2).reshape(-1))
    for order in orders:
        values = torch.from_numpy(dequantize(raw[order[some]], tensor.tensor_type)).to(weight.dtype)
        if torch.equal(values, weight):
            return np.ascontiguousarray(raw[order])
    raise ModelError(f"{name}: is in another order than the model's")
