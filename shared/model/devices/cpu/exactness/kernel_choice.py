"""Chooses the kernel for a model's layers on this processor."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby

import structlog
import torch
from torch import nn
from transformers import PreTrainedModel

from shared.errors import ModelError
from shared.model.devices.cpu.exactness.kernel_trial import Trial
from shared.model.devices.cpu.exactness.proof import output_layer
from shared.model.devices.cpu.kernels.kernels import Kernel, kernels, named_kernel
from shared.model.devices.cpu.kernels.processor import has_amx, processor
from shared.model.distributed.ranks import num_ranks
from shared.model.kept import kept
from shared.model.sources import COMPUTING, sources_digest

log = structlog.get_logger()

GAIN = 1.15  # how much faster another kernel must be to replace the preferred one: changing kernels changes bits
_WORTH_MEASURING = 64 << 20  # weights, in bytes; in smaller models, products do not dominate the time
_COMMON_SIZES = ((2048, 11008), (8192, 2048))  # of layers, (in, out)
_LARGEST = 2  # how many sizes of layers are tried
_TRIAL_SECONDS = 120


def kernel_order(model: PreTrainedModel, dtype: torch.dtype, setting: str) -> list[Kernel]:
    """Return the kernels for the model's layers in the order to try them; `auto` chooses the first one.

    The choice is the first usable kernel in the order of preference, unless another one is faster by GAIN. It is
    measured once, and kept. Nothing in this process may have used oneDNN before. Raises ModelError for a kernel that
    is unknown or not available.
    """
    if setting != "auto":
        chosen = named_kernel(setting, dtype)
        chosen.enter()
        if chosen.problem:
            raise ModelError(f"kernel {setting}: {chosen.problem}")
        return [chosen]
    usable = kernels(dtype)
    sizes = _sizes(model) if num_ranks() == 1 else []  # ranks could measure, and choose, differently
    trial = _best(_kept_trials(_worth_trying(usable), sizes, dtype)) if sizes else None
    best = trial.kernel if trial else ""
    found = [kernel for kernel in usable if kernel.name == best or not (best or kernel.isa or kernel.problem)]
    if not found:
        raise ModelError(f"no kernel: {'; '.join(kernel.problem for kernel in usable) or 'numba is not installed'}")
    chosen = found[0]
    chosen.enter()
    # Kernels with another instruction set are left out, since it can no longer be changed.
    return [chosen, *(kernel for kernel in usable if kernel is not chosen and not kernel.isa)]


def fastest(dtype: torch.dtype) -> Trial | None:
    """Return how the kernel that `auto` chooses does on layers of common sizes; None if none is usable.

    Its cost is infinite on a machine too busy to measure.
    """
    return _best(_kept_trials(_worth_trying(kernels(dtype)), _COMMON_SIZES, dtype))


def _worth_trying(usable: Sequence[Kernel]) -> Sequence[Kernel]:
    """Return the kernels but the last, which is only for machines that have no other."""
    return usable[:-1] or usable


def _best(trials: Sequence[Trial]) -> Trial | None:
    """Return the first usable kernel, or a later one that is faster by GAIN than the one it replaces.

    The first one if not all could be measured; None if none is usable.
    """
    usable = [trial for trial in trials if not trial.problem]
    best = usable[0] if usable else None
    if best and all(math.isfinite(trial.cost) for trial in usable):
        for trial in usable[1:]:
            if best.cost > GAIN * trial.cost:
                best = trial
    return best


def _kept_trials(usable: Sequence[Kernel], sizes: Sequence[tuple[int, int]], dtype: torch.dtype) -> list[Trial]:
    setup = {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    key = json.dumps(setup | {"sizes": sizes, "dtype": str(dtype), "code": sources_digest(*COMPUTING)})

    trials = list[Trial]()

    def find() -> list[Trial] | None:
        groups = groupby(sorted(usable, key=lambda kernel: kernel.isa), lambda kernel: kernel.isa)
        trials.extend(trial for isa, group in groups for trial in _try(isa, group, sizes, dtype))
        quiet = bool(trials) and all(math.isfinite(trial.cost) for trial in trials if not trial.problem)
        log.info("kernels tried" if quiet else "kernels tried, too busy a machine to choose", trials=trials, **setup)
        return trials if quiet else None

    found = {trial.kernel: trial for trial in kept("kernels", key, list[Trial], find) or trials}
    return [found[kernel.name] for kernel in usable if kernel.name in found]


def _try(isa: str, group: Iterable[Kernel], sizes: Sequence[tuple[int, int]], dtype: torch.dtype) -> list[Trial]:
    """Try kernels of one instruction set in a separate process; empty if it fails."""
    if isa and not has_amx():
        return []
    names = [kernel.name for kernel in group]
    threads = torch.get_num_threads()
    flags = [f"--dtype={str(dtype).removeprefix('torch.')}", f"--threads={threads}"]
    flags.append("--sizes=" + ",".join(f"{inputs}x{outputs}" for inputs, outputs in sizes))
    command = [sys.executable, "-m", "shared.model.devices.cpu.exactness.kernel_trial", *flags, *names]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    run = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=_TRIAL_SECONDS)
    try:
        done = run(command, env=environment)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        log.warning("kernels could not be tried", kernels=names, reason=str(error), said=str(error.stderr)[-500:])
        return []
    return [Trial(**json.loads(line)) for line in done.stdout.splitlines()]


def _sizes(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of the layers with the most weights, except the output layer; none for a small model."""
    head = output_layer(model)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    if sum(linear.weight.nbytes for linear in linears) < _WORTH_MEASURING:
        return []
    sizes = {(linear.in_features, linear.out_features) for linear in linears}
    return sorted(sizes, key=lambda size: (-size[0] * size[1], size))[:_LARGEST]
