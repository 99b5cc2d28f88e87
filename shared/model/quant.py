"""Which weights `auto` means."""

from pathlib import Path

from transformers import AutoConfig

from shared.model.engine_settings import DeviceKind, Quant
from shared.model.fused import FAMILY
from shared.model.int8_linear import can_round
from shared.model.onnx_folder import can_convert


def resolve(quant: Quant, device: DeviceKind, folder: Path) -> Quant:
    """Return what `auto` is for this model: on a CPU int4 where that can be had, else int8, else neither."""
    if quant != "auto":
        return quant
    if device == "neuron":
        return "none"
    if can_convert() and AutoConfig.from_pretrained(folder).model_type in FAMILY:
        return "int4"
    return "int8" if can_round() else "none"
