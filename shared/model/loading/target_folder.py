"""Chooses the weights that a target is served with."""

from pathlib import Path

import structlog
import torch

from shared.model.checkpoints.gguf_folder import is_rounded
from shared.model.checkpoints.pairs import TARGET, gguf_of, resolve_half
from shared.model.devices.cpu.exactness.kernel_choice import fastest
from shared.model.distributed.ranks import num_ranks
from shared.model.settings import DeviceKind, Quant

log = structlog.get_logger()


def target_folder(name: str, quant: Quant, device: DeviceKind = "cpu") -> Path:
    """Return the folder of a target, with weights of 8 bits if `quant` says so; made or downloaded if need be.

    Empty is `auto` for a .gguf file with rounded weights, which lose little by it, and `none` for everything else.
    Raises ModelError.
    """
    if not quant:
        gguf = gguf_of(name, TARGET)
        quant = "auto" if gguf and is_rounded(gguf) else "none"
    if quant == "auto":
        quant = "int8" if device != "neuron" and num_ranks() == 1 and int8_pays() else "none"
    return resolve_half(name, TARGET, int8=quant == "int8")


def int8_pays() -> bool:
    """Return whether products with weights of 8 bits are the fastest ones here; measured once, and kept."""
    wide, rounded = (fastest(dtype) for dtype in (torch.bfloat16, torch.int8))
    log.info("weights compared", bfloat16=wide, int8=rounded)
    return bool(rounded and (not wide or rounded.cost < wide.cost))
