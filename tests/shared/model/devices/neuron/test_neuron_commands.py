"""What `compile` and `doctor` print."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mix import trial_settings
from services import ROOT
from transformers import AutoConfig

from shared.errors import ModelError
from shared.model.checkpoints.pairs import TARGET
from shared.model.commands.compile_graphs import compile_graphs
from shared.model.commands.doctor import DoctorSettings, doctor_findings
from shared.model.commands.footprint import Footprint
from shared.model.devices.neuron import neuron_machine
from shared.model.devices.static.graphs import GraphSizes


def examined(folder: Path, **changed: object) -> DoctorSettings:
    """Return settings for the doctor."""
    return DoctorSettings.model_construct(**trial_settings(folder, **changed).model_dump())


def test_compile(toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each graph of the set, with its shapes and seconds, and what stays on the device."""
    compile_graphs(toy[1], trial_settings(toy[1], max_length=100))
    printed = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    least = {
        ("verify", "3 x 5", "64"),
        ("verify", "3 x 5", "100"),
        ("prefill", "1 x 16", "64"),
        ("verify", "3 x 2", "64"),
    }
    assert least <= {(kind, shape, keys) for kind, shape, keys, *_ in lines}
    assert all(float(line[3]) > 0 for line in lines)
    assert lines[0][4] == f"{3 * 5 * (512 * 4 + 4) / 1e6:.2f}"
    assert "prompts run through" in printed
    assert "drawn in the graph: all" in printed
    assert "keys and values 0.2 MB" in printed  # 2 layers of 2 x 3 slots of 2 heads of 116 positions of 16 float32


def test_compile_without_the_sdk(toy: tuple[Path, Path]) -> None:
    """Is no way around the SDK."""
    with pytest.raises(ModelError, match="torch-neuronx is not installed"):
        compile_graphs(toy[1], trial_settings(toy[1], compile_backend="neuron"))


def test_doctor_where_nothing_is() -> None:
    """As a command of its own, without a model: what to install, and a code that says that something is missing."""
    command, wide = [sys.executable, "-m", "draft_service", "doctor"], os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=wide)
    assert done.returncode == 1
    assert "pip.repos.neuron.amazonaws.com" in done.stdout
    assert "aws-neuronx-dkms" in done.stdout


def test_doctor_of_a_trn2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: tuple[Path, Path]) -> None:
    """On a machine that shows a device, with a placeholder, a model that fits and one that does not."""
    (tmp_path / "product_name").write_text("trn2.3xlarge\n")
    (tmp_path / "neuron0").touch()
    placeholder = tmp_path / "neuronx_cc-1.0.dist-info"
    placeholder.mkdir()
    (placeholder / "METADATA").write_text("Name: neuronx-cc\nVersion: 1.0\nSummary: WRONG PACKAGE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(neuron_machine, "INSTANCE_TYPE", tmp_path / "product_name")
    monkeypatch.setattr(neuron_machine, "DEVICES", tmp_path)
    found = {finding.what: finding for finding in doctor_findings(examined(toy[0]), TARGET)}
    assert found["instance type"].advice == ""
    assert found["devices"].found == "1"
    assert found["logical cores"].found == "4, of 2 physical each"
    assert "PyPI's placeholder" in found["neuronx-cc"].found
    assert found["memory, GB"].advice == ""
    many = examined(toy[0], num_slots=1024, max_length=2048, max_draft_tokens=31)
    (memory,) = [f for f in doctor_findings(many, TARGET) if f.what == "memory, GB"]
    assert memory.advice == ""
    monkeypatch.setattr("shared.model.commands.doctor.TRN2_CORE_GB", 1)
    (memory,) = [f for f in doctor_findings(many, TARGET) if f.what == "memory, GB"]
    assert "more than the 1 GB of a logical core: fewer slots" in memory.advice


def test_ranks_share_the_memory(toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two has half of all keys, values and weights but the norms'; the logits of a pass are whole."""
    config, sizes = AutoConfig.from_pretrained(toy[0]), GraphSizes.of(trial_settings(toy[0]), 128)
    alone = Footprint.of(config, torch.float32, sizes)
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    shared = Footprint.of(config, torch.float32, sizes)
    assert shared.cache * 2 == alone.cache
    assert 0 < shared.weights - alone.weights / 2 < 0.01 * alone.weights
    assert shared.logits == alone.logits
