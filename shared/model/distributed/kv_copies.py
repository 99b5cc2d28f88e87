"""Copies of heads of keys and values, for more ranks than a model has of them.

Each rank then has one such head, as every rank that has query heads of the same group. AWS serves Qwen3-32B, which has
8 of them, on 32 cores so (NxD: GroupQueryAttention_KV, REPLICATE_TO_TP_DEGREE).
"""

from copy import deepcopy

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from shared.errors import ModelError
from shared.model.attention_sizes import num_kv_heads
from shared.model.distributed.ranks import num_ranks, rank

_COPIED = ("k_proj", "v_proj")


def num_copies(config: PretrainedConfig) -> int:
    """Return how many ranks have the same head of keys and values: 1 where there are heads enough."""
    return max(1, num_ranks() // num_kv_heads(config))


def with_copies(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config of the same model with a head of keys and values for every rank."""
    copied = deepcopy(config)
    copied.get_text_config().num_key_value_heads = num_kv_heads(config) * num_copies(config)
    return copied


def whole_kv(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config by which transformers gives every rank all heads of keys and values.

    Raises ModelError where they are not made by two layers of their own that part by heads.
    """
    whole = deepcopy(config)
    plan = config.get_text_config().base_model_tp_plan
    copied = {name for name, style in plan.items() if name.endswith(_COPIED) and style == "colwise"}
    if len(copied) != len(_COPIED):
        raise ModelError(
            f"{config.model_type}: {num_kv_heads(config)} heads of keys and values, {num_ranks()} ranks: no copies"
        )
    whole.get_text_config().base_model_tp_plan = {name: style for name, style in plan.items() if name not in copied}
    return whole


def take_copies(model: PreTrainedModel) -> None:
    """Leave this rank its one head of keys and values of a model that has all of them."""
    heads = num_kv_heads(model.config)
    for attention in [module for module in model.modules() if hasattr(module, _COPIED[0])]:
        for name in _COPIED:
            _keep_head(getattr(attention, name), heads)
        attention.num_key_value_groups = model.config.get_text_config().num_attention_heads // num_ranks()
    model.config = with_copies(model.config)


def _keep_head(linear: nn.Linear, heads: int) -> None:
    mine = rank() * heads // num_ranks()
    with torch.no_grad():
        for name, parameter in list(linear.named_parameters()):  # [heads * head_dim, ...]
            kept = parameter.chunk(heads)[mine].clone()
            setattr(linear, name, nn.Parameter(kept, requires_grad=False))
    linear.out_features = linear.weight.shape[0]
