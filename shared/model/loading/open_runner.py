"""Chooses where the passes of a model run.

`cpu` is this machine. `simulated` also computes here, then waits for as long as a given accelerator would take, using
no CPU: scheduling, overlap and load can be measured honestly on a small machine. All its reports say "simulated".
`neuron` is a fixed set of graphs, compiled by TorchNeuron, or for trials on the CPU by another torch.compile backend.
"""

from pathlib import Path

import structlog
import torch

from shared.errors import ModelError
from shared.model.checkpoints.onnx_folder import can_convert
from shared.model.checkpoints.supported import served_config
from shared.model.devices.cpu.fused_layers import FAMILY
from shared.model.devices.cpu.kernels.int8_linear import can_round
from shared.model.devices.neuron.neuron_device import NEURON, open_neuron
from shared.model.loading.load_runner import load_int4_runner, load_runner, load_static_runner
from shared.model.runner import Runner
from shared.model.settings import DeviceKind, EngineSettings, Quant

log = structlog.get_logger()


def open_runner(folder: Path, settings: EngineSettings) -> Runner:
    """Open a Hugging Face folder, and return its runner on the device of the settings. Raises ModelError."""
    quant = resolve(settings.quant, settings.device, folder)
    if settings.device != "neuron":
        if quant == "int4":
            return load_int4_runner(folder, settings.num_slots, settings.max_length)
        return load_runner(
            folder, settings.dtype, settings.num_slots, settings.max_length, quant, kernel=settings.kernel
        )
    if quant != "none":
        raise ModelError(f"quant {quant}: rounded weights are for CPUs, not for device neuron")
    device, name = torch.device("cpu"), f"neuron's graphs on cpu, by {settings.compile_backend}"
    if settings.compile_backend == NEURON:
        device, name = open_neuron(settings.cores, settings.compile_cache)
    return load_static_runner(folder, settings, device, name)


def resolve(quant: Quant, device: DeviceKind, folder: Path) -> Quant:
    """Return what `auto` means for this model: on a CPU int4 if available, else int8, else none.

    Raises ModelError.
    """
    if quant != "auto":
        return quant
    if device == "neuron":
        return "none"
    if can_convert() and served_config(folder).model_type in FAMILY:
        return "int4"
    return "int8" if can_round() else "none"
