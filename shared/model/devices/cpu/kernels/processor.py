"""Describes this machine's processor, as far as the bits of results depend on it."""

import os
import platform
from pathlib import Path

import torch

ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"  # oneDNN reads it at its first use in the process
# The second is the older name of the first.
_LIMITS = (
    ISA_VARIABLE,
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "FBGEMM_ENABLE_INSTRUCTIONS",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
)
_CPUINFO = Path("/proc/cpuinfo")
_ISAS = (  # oneDNN's names, the greatest first, and the Linux flag that each one needs
    ("avx512_core_amx", "amx_bf16"),
    ("avx512_core_bf16", "avx512_bf16"),
    ("avx512_core_vnni", "avx512_vnni"),
    ("avx512_core", "avx512bw"),
    ("avx2", "avx2"),
)


def has_amx() -> bool:
    """Whether oneDNN may use AMX."""
    return isa() == "avx512_core_amx"


def has_bfloat16() -> bool:
    """Whether the processor can multiply bfloat16 and oneDNN may use that."""
    return isa() not in {"avx512_core_vnni", "avx512_core", "avx2"}


def isa() -> str:
    """Return oneDNN's name for the greatest instruction set that it uses; except on x86, the architecture's name."""
    names = [name for name, _ in _ISAS]
    greatest = (os.environ.get(ISA_VARIABLE) or os.environ.get("DNNL_MAX_CPU_ISA") or "all").lower()
    if greatest not in {"all", "default", *names}:
        return greatest  # below AVX2, or newer than this list: returned as given
    allowed = _ISAS[names.index(greatest) :] if greatest in names else _ISAS
    return next((name for name, flag in allowed if flag in flags()), platform.machine())


def flags() -> set[str]:
    """Return the processor's flags as Linux lists them; none except on x86."""
    return set(_field("flags").split())


def processor() -> str:
    """Return the processor's name and everything that decides which code torch and oneDNN run on it."""
    model = _field("model name") or platform.processor() or platform.machine()
    limits = [os.environ.get(name, "") for name in _LIMITS]
    return " ".join([model, isa(), torch.backends.cpu.get_cpu_capability(), *limits])


def _field(name: str) -> str:
    """Return a field of the first core in Linux's description; empty if there is none."""
    if not _CPUINFO.is_file():
        return ""
    lines = (line.partition(":") for line in _CPUINFO.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
