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
from shared.model.checkpoints.pairs import own_quant
from shared.model.checkpoints.supported import FAMILY, served_config
from shared.model.devices.cpu.kernels.kernels import rounds_fast
from shared.model.devices.neuron.neuron_device import NEURON, open_neuron
from shared.model.distributed.ranks import num_ranks
from shared.model.loading.load_runner import load_int4_runner, load_runner, load_static_runner
from shared.model.runner import Runner
from shared.model.settings import DeviceKind, EngineSettings, Quant

log = structlog.get_logger()


def open_runner(folder: Path, settings: EngineSettings) -> Runner:
    """Open a Hugging Face folder, and return its runner on the device of the settings. Raises ModelError."""
    *better, last = ways(settings.quant, settings.device, folder)
    for quant in better:
        try:
            return _open(folder, settings, quant)
        except ModelError as error:
            log.warning("these weights cannot be had: trying the next ones", quant=quant, reason=str(error))
    return _open(folder, settings, last)


def _open(folder: Path, settings: EngineSettings, quant: Quant) -> Runner:
    if settings.device != "neuron":
        by_memory = settings.device == "cpu" and num_ranks() == 1
        size = (settings.num_slots, settings.max_length) if by_memory else settings.fixed_size
        share = settings.cache_share
        if quant == "int4":
            return load_int4_runner(folder, *size, share)
        return load_runner(
            folder,
            settings.dtype,
            *size,
            quant,
            kernel=settings.kernel,
            cache_share=share,
            collective=settings.collective,
        )
    quant = own_quant(folder) if own_quant(folder) != "none" else quant
    if quant != "none":
        raise ModelError(f"quant {quant}: rounded weights are for CPUs, not for device neuron")
    device, name = torch.device("cpu"), f"neuron's graphs on cpu, by {settings.compile_backend}"
    if settings.compile_backend == NEURON:
        device, name = open_neuron(settings.cores, settings.compile_cache)
    return load_static_runner(folder, settings, device, name)


def ways(quant: Quant, device: DeviceKind, folder: Path) -> list[Quant]:
    """Return what `auto` tries for this model, in order: on a CPU int4 if available, then int8, then none.

    Raises ModelError.
    """
    if quant != "auto":
        return [quant]
    if device == "neuron":
        return ["none"]
    available: dict[Quant, bool] = {
        "int4": can_convert() and served_config(folder).model_type in FAMILY,
        "int8": rounds_fast(),
        "none": True,
    }
    return [quant for quant, there in available.items() if there]
