"""Models with weights of 8 bits, as transformers opens and saves them."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from shared.model.checkpoints.pairs import INT8
from shared.model.checkpoints.rotation import is_rotated, rotated_parts
from shared.model.checkpoints.rounded_linear import RoundedLinear
from shared.model.checkpoints.stored_quantizer import StoredQuantizer

BLOCK = 128  # smaller ones cost less time, and mix less: docs/decisions.md


@register_quantization_config(INT8)
class RoundedConfig(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is untyped
    """What marks such a folder in its config.json."""

    def __init__(self, quant_method: str = INT8, **_: Any) -> None:
        """Take what the config.json says."""
        self.quant_method = quant_method


@register_quantizer(INT8)
class RoundedQuantizer(StoredQuantizer):
    """Makes transformers load whole numbers and their scales into a model's linear layers."""

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        for parent, name, linear in linears(model):
            sizes = linear.in_features, linear.out_features
            setattr(parent, name, RoundedLinear.empty(*sizes, linear.bias, _block(model, name, linear)))


def round_model(model: PreTrainedModel) -> None:
    """Rotate the model if it is of a kind for that, and round its linear layers' weights to 8 bits, all in place.

    The embeddings stay as they are. The output layer must not be tied to them.
    """
    for part in rotated_parts(model):
        for parent, name, linear in linears(part):
            setattr(parent, name, RoundedLinear.of(linear, _block(model, name, linear)))
    model.config.tie_word_embeddings = False
    model.config.quantization_config = {"quant_method": INT8}


def _block(model: PreTrainedModel, name: str, linear: nn.Linear) -> int:
    """Return how many inputs of a layer are rotated together: none where the layers before it rotate them already."""
    return 1 if is_rotated(model) and name != "down_proj" else min(linear.in_features & -linear.in_features, BLOCK)


def linears(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return the linear layers, each with the module that it is part of, and its name there."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
