"""The machine that a measurement ran on."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent
# The flags that decide which kernels a matrix product uses.
FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx_ne_convert",
         "amx_tile", "amx_bf16", "amx_int8")  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The hardware, the software, and what else was running."""

    cpu: str
    flags: str
    cores: int
    memory_gb: float
    load_average: float
    """Of the last minute before the start: what else was running."""
    system: str
    python: str
    torch: str
    transformers: str
    commit: str
    date: str

    @classmethod
    def here(cls) -> Self:
        """Describe this machine now."""
        cpu = dict(_pairs(Path("/proc/cpuinfo")))
        memory_kb = dict(_pairs(Path("/proc/meminfo"))).get("MemTotal", "0 kB").split()[0]
        present = (cpu.get("flags") or cpu.get("Features", "")).split()
        return cls(
            cpu=cpu.get("model name") or platform.processor() or platform.machine(),
            flags=" ".join(flag for flag in FLAGS if flag in present),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=round(int(memory_kb) / 1e6, 1),
            load_average=round(os.getloadavg()[0], 2),
            system=platform.platform(),
            python=platform.python_version(),
            torch=_version("torch"),
            transformers=_version("transformers"),
            commit=_commit(),
            date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )


def _pairs(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [(key.strip(), value.strip()) for key, colon, value in (line.partition(":") for line in lines) if colon]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "not a git repository"
    return head.stdout.strip() + (", with uncommitted changes" if changes.stdout.strip() else "")
