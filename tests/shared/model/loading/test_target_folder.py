"""What `auto` means for a target's weights."""

import os
import subprocess
import sys
from math import inf
from pathlib import Path

import psutil
import pytest
import torch
from k_quant_models import random_model, save_rounded

from shared.errors import ModelError
from shared.model.checkpoints.pairs import TARGET
from shared.model.devices.cpu.exactness.kernel_trial import Trial
from shared.model.devices.cpu.kernels import kernels
from shared.model.loading.target_folder import fastest_first, target_folder

ROOT = Path(__file__).parents[4]
FASTEST = "shared.model.loading.target_folder.fastest"


@pytest.mark.parametrize(
    ("costs", "order"),
    [
        ({"uint8": 4, "int8": 1, "bfloat16": 2}, ["int8", "none", "gguf"]),
        ({"uint8": 1.4, "int8": 1, "bfloat16": 2}, ["gguf", "int8", "none"]),  # a pass is more than its products
        ({"uint8": 3, "int8": inf, "bfloat16": 2}, ["gguf", "int8", "none"]),  # too busy a machine
        ({"int8": 1, "bfloat16": 2}, ["int8", "none"]),  # no kernel for K-quants
        ({"uint8": 3, "int8": 1}, ["int8", "gguf", "none"]),
        ({}, ["none"]),
    ],
)
def test_the_order(costs: dict[str, float], order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was measured, of what can be used; the weights as they are can always be."""

    def fastest(dtype: torch.dtype) -> Trial | None:
        cost = costs.get(str(dtype).removeprefix("torch."))
        return None if cost is None else Trial("some", "", (cost, 0))

    monkeypatch.setattr(FASTEST, fastest)
    assert fastest_first(of_file=True) == order
    assert fastest_first(of_file=False) == [quant for quant in order if quant != "gguf"]


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the images for Neuron: K-quants are not among the ways, and nothing fails."""
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert kernels.kernels(torch.uint8) == []
    assert "gguf" not in fastest_first(of_file=True)


def test_a_folder_of_k_quants_is_what_it_is(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Left open or `auto`, it is served; asked for other weights, it says that it has none."""
    save_rounded(random_model("qwen2"), tmp_path)
    assert {target_folder(str(tmp_path), quant) for quant in ("", "auto", "gguf", "none")} == {tmp_path}
    with pytest.raises(ModelError, match=r"the weights of .* are rounded already"):
        target_folder(str(tmp_path), "int8")
    with pytest.raises(ModelError, match=r"is no \.gguf file"):
        target_folder(str(toy[TARGET]), "gguf")


def test_choosing_computes_nothing_here() -> None:
    """Each thread that computes has a team of threads as long as it lives: this one is not to be such a thread."""
    before = psutil.Process().num_threads()
    fastest_first(of_file=True)
    assert psutil.Process().num_threads() <= before


@pytest.mark.parametrize("limit", [{"NUMBA_CPU_NAME": "generic"}, {"NUMBA_ENABLE_AVX": "0"}])
def test_where_numba_compiles_for_less(limit: dict[str, str]) -> None:
    """The kernel says that it is not there; LLVM would end the process."""
    script = (
        "import torch; from shared.model.devices.cpu.kernels.kernels import kernels; "
        "print(kernels(torch.uint8)[0].problem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | limit, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "products with K-quants need AVX2"
