"""Threads that compute a list of stages together.

Each goes through the stages in their order and takes items of each until none is left; then it waits until those that
others took are done. However many threads there are, and whoever computes an item, its bits are the same.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from numba import types
from numba.core.errors import NumbaError
from numpy.typing import NDArray

from shared.model.devices.cpu.compiled_code.kept_code import compiled_once
from shared.model.devices.cpu.compiled_code.shared_memory import add, number, rest, seen
from shared.model.devices.cpu.compiled_code.stage_numbers import DONE, ITEMS, NEXT, WIDTH
from shared.model.devices.cpu.compiled_code.stages import compute

log = structlog.get_logger()

_PATIENCE = 1 << 14  # moments that a thread waits before it lets others run on its core

_yield = types.ExternalFunction("sched_yield", types.int32())


def run(stages: NDArray[np.int64]) -> None:
    """Compute stages, [stages, WIDTH], without the GIL, on the threads that torch's operations run on.

    Threads of another pool would wait beside those for the same cores.
    """
    stages[:, NEXT] = stages[:, DONE] = 0
    program = (ctypes.c_int64 * 2)(stages.ctypes.data, len(stages))
    code, team, threads = _code(), _team(), torch.get_num_threads()
    if team is None or threads == 1:
        code(ctypes.addressof(program))
    else:
        team(code, program, threads, 0)


def _work(program: int) -> None:
    """Do one thread's part."""
    first = number(program, 0)
    for place in range(number(program, 1)):
        stage = first + 8 * WIDTH * place
        items = number(stage, ITEMS)
        item = add(stage + 8 * NEXT)
        while item < items:
            compute(stage, item)
            add(stage + 8 * DONE)
            item = add(stage + 8 * NEXT)
        waited = 0
        while seen(stage + 8 * DONE) < items:
            rest()
            waited += 1
            if waited > _PATIENCE:
                _yield()


@cache
def _code() -> Any:
    """Return one thread's part as ctypes calls it. Raises RuntimeError."""
    try:
        return compiled_once(types.void(types.int64), _work)
    except NumbaError as error:
        raise RuntimeError(str(error)) from error


@cache
def _team() -> Any:
    """Return what runs code on each thread of torch's OpenMP, by GNU's interface; None where torch has another."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libgomp.so.1"))
    except OSError as error:
        log.warning("one thread computes: torch has another OpenMP than GNU's", reason=str(error))
        return None
    library.GOMP_parallel.restype = None
    return library.GOMP_parallel
