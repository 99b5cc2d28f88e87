"""Which weights `auto` means."""

from pathlib import Path

from shared.model.engine_settings import DeviceKind, Quant
from shared.model.fused import FAMILY
from shared.model.int8_linear import can_round
from shared.model.onnx_folder import can_convert
from shared.model.supported import served_config


def resolve(quant: Quant, device: DeviceKind, folder: Path) -> Quant:
    """Return what `auto` is for this model: on a CPU int4 where that can be had, else int8, else neither.

    Raises ModelError.
    """
    if quant != "auto":
        return quant
    if device == "neuron":
        return "none"
    if can_convert() and served_config(folder).model_type in FAMILY:
        return "int4"
    return "int8" if can_round() else "none"
