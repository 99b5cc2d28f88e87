"""The Neuron device: the only module that imports torch_neuronx."""

import importlib
import os
from pathlib import Path

import structlog
import torch

from shared.errors import ModelError
from shared.model.devices.neuron.neuron_machine import (
    INSTALL,
    check_cores,
    check_machine,
    claim_cores,
    instance_type,
    parse_cores,
)
from shared.model.distributed.ranks import num_ranks, rank
from shared.model.kept import cache

log = structlog.get_logger()

NEURON = "neuron"  # the device, and the backend of torch.compile
ENVIRONMENT = {  # variables that are already set keep their values
    "TORCH_NEURONX_DISABLE_FALLBACK_EXECUTION": "1",  # a graph that does not compile is an error, not slow
    "TORCH_NEURONX_DYNAMO_DISABLE_CPU_AUTOCOPY": "1",  # and so is an input that is not on the device
    "NEURON_CC_FLAGS": "--auto-cast=none --model-type=transformer",  # float32 stays float32
}


def cache_folder(setting: str) -> Path:
    """Return where compiled graphs are kept."""
    return Path(setting or os.environ.get("TORCH_NEURONX_NEFF_CACHE_DIR") or cache("neff"))


def own_cores(visible: str) -> list[int]:
    """Return this process's share of the cores that all ranks see: one per rank, or all of them if it is alone.

    Raises ModelError.
    """
    cores = parse_cores(visible)
    if num_ranks() == 1:
        return cores
    if len(cores) != num_ranks():
        raise ModelError(f"cores {visible}: {len(cores)} for {num_ranks()} ranks, of which each has one")
    return cores[rank() : rank() + 1]


def open_neuron(cores: str, cache: str) -> tuple[torch.device, str]:
    """Claim the cores, load the runtime, and return the device and its name.

    `cache` is the folder for compiled graphs. Raises ModelError, which says what to do.
    """
    check_machine()
    if cores:
        check_cores(parse_cores(cores))
        os.environ["NEURON_RT_VISIBLE_CORES"] = cores
    if visible := os.environ.get("NEURON_RT_VISIBLE_CORES"):
        claim_cores(own_cores(visible))
    folder = cache_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_NEURONX_NEFF_CACHE_DIR"] = str(folder)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        version = importlib.import_module("torch_neuronx").__version__
    except (ImportError, OSError) as error:
        raise ModelError(f"device neuron: torch_neuronx does not load: {error}. {INSTALL}") from error
    module = getattr(torch, NEURON, None)
    if module is None:
        raise ModelError(f"torch-neuronx {version}: the one for XLA, without a device of its own. {INSTALL}")
    if not module.is_available():
        raise ModelError("device neuron: no Neuron device to be had; `python -m target_service doctor` says more")
    log.info("neuron", version=version, instance=instance_type(), cores=visible or "all", compile_cache=str(folder))
    return torch.device(NEURON), f"neuron, {instance_type()}, cores {visible or 'all'}"
