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
ISAS = {  # the limits for oneDNN, torch, FBGEMM and numba, and the Linux flag that the processor needs
    "avx2": ("AVX2", "avx2", "AVX2", "haswell", "-avx512f", "avx2"),
    "avx512_core": ("AVX512_CORE", "", "AVX512", "skylake-avx512", "+avx512bw", "avx512bw"),
    "avx512_core_vnni": ("AVX512_CORE_VNNI", "", "AVX512_VNNI", "", "", "avx512_vnni"),
    "avx512_core_bf16": ("AVX512_CORE_BF16", "", "", "", "", "avx512_bf16"),
    "own": ("", "", "", "", "", ""),
}
LIMITS = (
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "FBGEMM_ENABLE_INSTRUCTIONS",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
)
SMALL = "1536x2048"
LAYERS = f"{SMALL},8960x1536,896x4864"
CASES = {"bfloat16": f"first:{LAYERS}", "float32": f"first:{SMALL}", "int8": f"all:{SMALL}",
         "uint8": f"all:{SMALL},8960x1536"}  # fmt: skip
ALL_LAYERS = f"{LAYERS},1536x1536,1536x17920,4864x896,4096x14336,14336x4096"
HEADS = "896x151936,1536x151936"
SAMPLE = [*range(1, 18), 31, 32, 33, 47, 64, 65, 72, 100, 128, 200]
ALL_ROWS = [*range(1, 129), 144, 160, 161, 191, 200, 255, 256, 257, 300, 384, 385, 450, 511, 512]


def environment(isa: str) -> dict[str, str]:
    """Return this process's environment limited to an instruction set; skip the test if the processor lacks it."""
    *limits, flag = ISAS[isa]
    if flag and flag not in flags():
        pytest.skip(f"this processor has no {flag}")
    given = zip(LIMITS, limits, strict=True)
    return os.environ | {name: value for name, value in given if value} | {"OMP_NUM_THREADS": "2"}


def check(isa: str, rows: Sequence[int], *cases: str) -> list[dict[str, object]]:
    """Run isa_layers.py, and return what it printed."""
    script = str(ROOT / "tests" / "support" / "isa_layers.py")
    command = [sys.executable, script, f"--rows={','.join(map(str, rows))}", *cases]
    path = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment(isa) | path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("isa", ISAS)
def test_layers_are_exact(isa: str) -> None:
    """The kernel that is preferred there gives the same bits for any number of rows; in 8 bits, each one does."""
    told = check(isa, SAMPLE, *(f"{dtype}:{case}" for dtype, case in CASES.items()))
    assert [layer for layer in told if layer["inexact"]] == []
    assert {layer["dtype"] for layer in told} == CASES.keys()


@pytest.mark.real
@pytest.mark.parametrize("isa", ISAS)
def test_all_kernels_are_exact_or_refused(isa: str) -> None:
    """Every available kernel at every size: blocks of the proved row counts are exact for 1 to 128 rows and beyond.

    Output layers, which run few rows, are tried at a sample of row counts.
    """
    told = check(isa, ALL_ROWS, f"bfloat16:all:{ALL_LAYERS}") + check(isa, SAMPLE, f"bfloat16:all:{HEADS}")
    assert [layer for layer in told if layer["inexact"] not in ("all", [])] == []
    usable = {layer["kernel"] for layer in told} - {layer["kernel"] for layer in told if layer["inexact"]}
    assert usable, "no kernel is exact here"
