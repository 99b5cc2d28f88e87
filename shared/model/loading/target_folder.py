"""Chooses the weights that a target is served with."""

from math import isfinite
from pathlib import Path

import structlog
import torch

from shared.errors import ModelError
from shared.model.checkpoints.pairs import TARGET, comes_rounded, own_quant, resolve_half
from shared.model.devices.cpu.exactness.kernel_choice import fastest
from shared.model.distributed.ranks import num_ranks
from shared.model.settings import DeviceKind, Quant

log = structlog.get_logger()

_FAVOUR = 1.5  # times as long as others may its products take for a file's own blocks still to be the first choice


def target_folder(name: str, quant: Quant, device: DeviceKind = "cpu") -> Path:
    """Return the folder of a target with weights as `quant` says; made or downloaded if need be.

    Empty is `auto` for a .gguf file with rounded weights, which lose little by it, and `none` for everything else.
    Raises ModelError.
    """
    if quant in {"", "auto"} and Path(name).is_dir() and own_quant(Path(name)) != "none":
        return resolve_half(name, TARGET)
    of_file = quant in {"", "auto"} and comes_rounded(name, TARGET)
    if not quant:
        quant = "auto" if of_file else "none"
    if quant != "auto":
        return resolve_half(name, TARGET, quant=quant)
    if device == "neuron" or num_ranks() > 1:
        return resolve_half(name, TARGET)
    first, *others = fastest_first(of_file=of_file)
    if first == "gguf":
        try:
            return resolve_half(name, TARGET, quant=first)
        except ModelError as error:
            log.info("its own blocks cannot be served: trying other weights", model=name, reason=str(error))
            first = others[0]
    return resolve_half(name, TARGET, quant=first)


def fastest_first(*, of_file: bool) -> list[Quant]:
    """Return the ways to round weights, and none, from the fastest products on; measured once, and kept.

    `gguf` is among them for weights that come from such a file. On a machine too busy to measure, it is taken to be the
    fastest, then int8, where there are kernels for them: they read a third, and half, as much. All of it is tried in
    processes of their own: the thread that computes here is not this one, and each would have a team of threads.
    """
    dtypes: dict[Quant, torch.dtype] = {"gguf": torch.uint8, "int8": torch.int8, "none": torch.bfloat16}
    if not of_file:
        del dtypes["gguf"]
    trials = {quant: trial for quant, dtype in dtypes.items() if (trial := fastest(dtype))}
    log.info("weights compared", **trials)
    there: list[Quant] = [quant for quant in dtypes if quant in trials]
    if all(isfinite(trial.cost) for trial in trials.values()):
        # What is between its products takes less, too, which a trial of products does not show.
        there.sort(key=lambda quant: trials[quant].cost / (_FAVOUR if quant == "gguf" else 1))
    return there if "none" in there else [*there, "none"]
