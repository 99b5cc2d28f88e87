"""Models with the K-quants of a .gguf file, as transformers opens and saves them."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.k_quants import K_QUANTS
from shared.model.checkpoints.pairs import K_QUANT
from shared.model.checkpoints.stored_quantizer import StoredQuantizer


@register_quantization_config(K_QUANT)
class KQuantConfig(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is untyped
    """What marks such a folder in its config.json."""

    def __init__(self, forms: Mapping[str, str], quant_method: str = K_QUANT, **_: Any) -> None:
        """Take what the config.json says. forms: the K-quant of each linear layer, by the layer's name."""
        self.quant_method, self.forms = quant_method, dict(forms)


@register_quantizer(K_QUANT)
class KQuantQuantizer(StoredQuantizer):
    """Makes transformers load tiles into a model's linear layers."""

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        for name, form in self.quantization_config.forms.items():
            linear = model.get_submodule(name)
            sizes = linear.in_features, linear.out_features
            set_linear(model, name, KQuantLinear.empty(*sizes, linear.bias, K_QUANTS[form]))


def set_linear(model: PreTrainedModel, name: str, linear: nn.Linear) -> None:
    """Put a layer in the place of this name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, linear)
