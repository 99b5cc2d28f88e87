"""Simulates lesser processors: layers of real sizes are exact with each instruction set that this processor has."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from shared.model.devices.cpu.kernels.processor import flags

ROOT = Path(__file__).parent.parent.parent
ISAS = {  # the limits for oneDNN, torch and FBGEMM, and the Linux flag that the processor needs
    "avx2": ("AVX2", "avx2", "AVX2", "avx2"),
    "avx512_core": ("AVX512_CORE", "", "AVX512", "avx512bw"),
    "avx512_core_vnni": ("AVX512_CORE_VNNI", "", "AVX512_VNNI", "avx512_vnni"),
    "avx512_core_bf16": ("AVX512_CORE_BF16", "", "", "avx512_bf16"),
    "own": ("", "", "", ""),
}
LAYERS = "1536x2048,8960x1536,896x4864"
ALL_LAYERS = f"{LAYERS},1536x1536,1536x17920,4864x896,4096x14336,14336x4096"
HEADS = "896x151936,1536x151936"
SAMPLE = [*range(1, 18), 31, 32, 33, 47, 64, 65, 72, 100, 128, 200]
ALL_ROWS = [*range(1, 129), 144, 160, 161, 191, 200, 255, 256, 257, 300, 384, 385, 450, 511, 512]


def environment(isa: str) -> dict[str, str]:
    """Return this process's environment limited to an instruction set; skip the test if the processor lacks it."""
    onednn, aten, fbgemm, flag = ISAS[isa]
    if flag and flag not in flags():
        pytest.skip(f"this processor has no {flag}")
    limits = {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten, "FBGEMM_ENABLE_INSTRUCTIONS": fbgemm}
    return os.environ | {name: value for name, value in limits.items() if value} | {"OMP_NUM_THREADS": "2"}


def check(isa: str, dtype: str, which: str, layers: str, rows: Sequence[int]) -> list[dict[str, object]]:
    """Run isa_layers.py, and return what it printed."""
    flags = [f"--dtype={dtype}", f"--kernels={which}", f"--layers={layers}", f"--rows={','.join(map(str, rows))}"]
    command = [sys.executable, str(ROOT / "tests" / "support" / "isa_layers.py"), *flags]
    path = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment(isa) | path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
@pytest.mark.parametrize("isa", ISAS)
def test_layers_are_exact(isa: str, dtype: str) -> None:
    """The kernel that is preferred there gives the same bits for any number of rows; in 8 bits, each one does."""
    told = check(
        isa, dtype, "all" if dtype == "int8" else "first", LAYERS if dtype == "bfloat16" else "1536x2048", SAMPLE
    )
    assert [layer for layer in told if layer["inexact"]] == []
    assert told


@pytest.mark.real
@pytest.mark.parametrize("isa", ISAS)
def test_all_kernels_are_exact_or_refused(isa: str) -> None:
    """Every available kernel at every size: blocks of the proved row counts are exact for 1 to 128 rows and beyond.

    Output layers, which run few rows, are tried at a sample of row counts.
    """
    told = check(isa, "bfloat16", "all", ALL_LAYERS, ALL_ROWS) + check(isa, "bfloat16", "all", HEADS, SAMPLE)
    assert [layer for layer in told if layer["inexact"] not in ("all", [])] == []
    usable = {layer["kernel"] for layer in told} - {layer["kernel"] for layer in told if layer["inexact"]}
    assert usable, "no kernel is exact here"
