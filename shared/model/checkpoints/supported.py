"""Decides from a configuration, before reading weights, whether to serve a model and how long its sequences may be."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    DynamicCache,
    PretrainedConfig,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from shared.errors import ModelError, SettingError
from shared.model.settings import MAX_LENGTH

log = structlog.get_logger()

WINDOW = "its layers keep only a window of the last tokens, so a rejected draft token cannot be undone"
STATE = "its layers carry a state from token to token, so a rejected draft token cannot be undone"
FAMILY = {"llama", "mistral", "qwen2", "qwen3"}  # the model types with the Llama family's layers
UNLIMITED = 2**31  # a tokenizer's length that is no less is none
NUMBERS_OF_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def served_config(folder: Path) -> PretrainedConfig:
    """Return the folder's configuration. Raises a one-sentence ModelError for a model that cannot be served."""
    with refusing(folder.name, "its configuration cannot be read"):
        config = AutoConfig.from_pretrained(folder)
    refuse_unserved(config, config.model_type)
    return config


def refuse_unserved(config: PretrainedConfig, name: str) -> None:
    """Raise a one-sentence ModelError, which begins with the name, for a model that cannot be served."""
    with refusing(name, "its configuration is not understood"):
        reason = _why_not(config)
    if reason:
        raise ModelError(f"{name}: {reason}")


def own_length(config: PretrainedConfig, max_length: int | None = None) -> int:
    """Return max_length, capped at the model's limit and at where its rotary factors would depend on the pass.

    The limit is what `yarn` stretches the positions to, as vLLM has it; other configurations tell it themselves.
    """
    text = config.get_text_config()
    rotaries = _rotary_parameters(text)
    stretched = (
        int(rotary["original_max_position_embeddings"] * rotary["factor"])
        for rotary in rotaries
        if rotary["rope_type"] == "yarn"
    )
    own = max(getattr(text, "max_position_embeddings", None) or max_length or MAX_LENGTH, *stretched, 0)
    length: int = min(max_length or own, own)
    for rotary in rotaries:
        # `dynamic` factors do not change up to max_position_embeddings.
        if rotary["rope_type"] == "longrope" and rotary["original_max_position_embeddings"] < length:
            length = rotary["original_max_position_embeddings"]
            why = "beyond, its rotary factors (longrope) would change with the longest sequence of a pass"
            log.warning("sequences are cut", model=config.model_type, max_length=length, why=why)
    return length


def default_length(folder: Path) -> int | None:
    """Return the length that a tokenizer gives its model, if it gives one."""
    try:
        length = json.loads((folder / "tokenizer_config.json").read_text("utf-8")).get("model_max_length")
    except (OSError, ValueError):
        return None
    return int(length) if length and 1 < length < UNLIMITED else None


@contextmanager
def refusing(name: str, problem: str) -> Iterator[None]:
    """Turn any exception in the block into a one-sentence ModelError."""
    try:
        yield
    except (ModelError, SettingError):
        raise
    except Exception as error:  # a model's own code may raise anything
        raise ModelError(f"{name}: {problem} ({type(error).__name__}: {' '.join(str(error).split())})") from error


def _rotary_parameters(config: PretrainedConfig) -> list[dict[str, Any]]:
    """Return the rotary parameters of the model, or those of each of its layer types."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        return [parameters]
    return [each for each in parameters.values() if isinstance(each, dict)]


def _why_not(config: PretrainedConfig) -> str | None:
    """Return why a model cannot be served, or None."""
    return _why_no_decoder(config) or _why_not_rewindable(config) or _why_not_computed(config)


def _why_no_decoder(config: PretrainedConfig) -> str | None:
    if config.get_text_config() is not config:
        return "it takes more than text (images, sound); models of text alone are served"
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder beside its decoder; decoders alone are served"
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return "it is an encoder, which fills gaps; decoders, which continue a text, are served"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "it is no model that continues a text"
    return None


def _why_not_rewindable(config: PretrainedConfig) -> str | None:
    layers = {type(layer) for layer in DynamicCache(config=config).layers} - {DynamicLayer}
    if getattr(config, "num_attention_heads", None) is None:
        return STATE
    if layers == {DynamicSlidingWindowLayer}:
        return WINDOW
    return STATE if layers else None


def _why_not_computed(config: PretrainedConfig) -> str | None:
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention caps its scores (soft cap), which ours does not"
    attention = getattr(config, "attn_config", config)
    if config.model_type == "bloom" or getattr(attention, "alibi", False):
        return "its positions are biases of the attention (ALiBi), which ours has not"
    if not model._supports_attention_backend:  # noqa: SLF001 - the only door to it
        return "its attention cannot be replaced by ours, which many sessions share"
    experts = max(getattr(config, name, None) or 0 for name in NUMBERS_OF_EXPERTS)
    if experts > 1 and not model._can_set_experts_implementation():  # noqa: SLF001 - likewise
        return "its experts group the rows of a pass, so that rounding depends on neighbours, and cannot be replaced"
    return None
