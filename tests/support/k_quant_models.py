"""Models with K-quants, made without a file."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.k_quant_models import set_linear
from shared.model.checkpoints.k_quants import K_QUANTS, rounded_to
from shared.model.checkpoints.pairs import K_QUANT

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "vocab_size": 512, "head_dim": 32}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2}
FORMS = {"v_proj": "Q6_K", "down_proj": "Q6_K", "gate_proj": "Q5_K", "up_proj": "Q5_K", "lm_head": "Q6_K"}  # else Q4_K


def random_model(family: str, **others: object) -> PreTrainedModel:
    """Return a model of random weights, with biases and norms of all values."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES | HEADS | others, sliding_window=None)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def save_rounded(model: PreTrainedModel, folder: Path) -> None:
    """Round a model's linear layers to FORMS, in place, and write it."""
    forms = {}
    for name, linear in list(model.named_modules()):
        if isinstance(linear, nn.Linear):
            forms[name] = FORMS.get(name.rsplit(".", 1)[-1], "Q4_K")
            layer = KQuantLinear.empty(linear.in_features, linear.out_features, linear.bias, K_QUANTS[forms[name]])
            tiles = rounded_to(linear.weight.detach().float(), K_QUANTS[forms[name]])
            layer.weight = nn.Parameter(tiles, requires_grad=False)
            set_linear(model, name, layer)
    model.config.tie_word_embeddings = False
    model.config.quantization_config = {"quant_method": K_QUANT, "forms": forms}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
