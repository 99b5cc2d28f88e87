"""What numba compiles, and keeps for the next start on such a processor."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import structlog
from llvmlite import binding
from numba.core.caching import NullCache

from shared.model.kept import cache
from shared.model.sources import sources_digest

log = structlog.get_logger()

_Loop = TypeVar("_Loop", bound=Callable[..., Any])

_loops: list[Any] = []


def loop(**options: Any) -> Callable[[_Loop], _Loop]:
    """Compile a function at its first call, which is `prepare`'s."""

    def compiled(function: _Loop) -> _Loop:
        _loops.append(numba.njit(nogil=True, error_model="numpy", **options)(function))
        return cast("_Loop", _loops[-1])

    return compiled


def prepare(call_all: Callable[[], None]) -> None:
    """Compile all loops by `call_all`, or take them from the cache, where a next start on such a machine finds them."""
    numba.config.CACHE_DIR = str(_place())
    try:
        for each in _loops:
            each.enable_caching()
        call_all()
    except Exception as error:  # noqa: BLE001 - whatever a broken file, a full disk or a lack of rights raises in numba
        _say_not_kept(error)
        for each in _loops:
            each._cache = NullCache()  # noqa: SLF001 - nothing else takes back `enable_caching`
        call_all()


def compiled_once(signature: Any, function: Callable[..., None]) -> Any:
    """Return a function as compiled code that ctypes calls without the GIL, from the cache if it is there."""
    numba.config.CACHE_DIR = str(_place())
    try:
        return numba.cfunc(signature, cache=True, error_model="numpy")(function).ctypes
    except Exception as error:  # noqa: BLE001 - as above
        _say_not_kept(error)
        return numba.cfunc(signature, error_model="numpy")(function).ctypes


def _place() -> Path:
    """Return where what is compiled of these sources for this processor is kept."""
    target = [numba.config.CPU_NAME or binding.get_host_cpu_name(), numba.config.CPU_FEATURES]
    target.append(binding.get_host_cpu_features().flatten())
    target.append(sources_digest("devices/cpu", "checkpoints"))  # numba looks at one file of those that it compiles
    return cache("loops") / hashlib.sha256(repr(target).encode()).hexdigest()[:20]


def _say_not_kept(error: Exception) -> None:
    log.info("compiled loops are not kept", reason=f"{type(error).__name__}: {error}")
