"""Chooses the weights that a target is served with."""

from pathlib import Path

import structlog
import torch

from shared.model.checkpoints.pairs import TARGET, comes_rounded, resolve_half
from shared.model.devices.cpu.exactness.kernel_choice import fastest
from shared.model.devices.cpu.kernels.kernels import rounds_fast
from shared.model.distributed.ranks import num_ranks
from shared.model.settings import DeviceKind, Quant

log = structlog.get_logger()


def target_folder(name: str, quant: Quant, device: DeviceKind = "cpu") -> Path:
    """Return the folder of a target, with weights of 8 bits if `quant` says so; made or downloaded if need be.

    Empty is `auto` for a .gguf file with rounded weights, which lose little by it, and `none` for everything else.
    Raises ModelError.
    """
    if not quant:
        quant = "auto" if comes_rounded(name, TARGET) else "none"
    if quant == "auto":
        quant = "int8" if device != "neuron" and num_ranks() == 1 and int8_pays() else "none"
    return resolve_half(name, TARGET, int8=quant == "int8")


def int8_pays() -> bool:
    """Return whether products with weights of 8 bits are the fastest ones here; measured once, and kept.

    On a machine too busy to measure they are taken to be, where there are kernels for them: they read half as much.
    """
    wide, rounded = fastest(torch.bfloat16), fastest(torch.int8)
    log.info("weights compared", bfloat16=wide, int8=rounded)
    return rounded.cost < wide.cost if wide and rounded else rounds_fast()
