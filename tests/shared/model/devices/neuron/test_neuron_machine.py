"""Where device neuron cannot be, the start says why and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from services import ROOT

from shared.errors import ModelError
from shared.model.devices.neuron import neuron_machine
from shared.model.devices.neuron.neuron_device import open_neuron, own_cores
from shared.model.devices.neuron.neuron_machine import Package, check_cores, claim_cores, parse_cores
from shared.model.loading.open_runner import open_runner
from shared.model.settings import EngineSettings


def install(folder: Path, name: str, version: str, summary: str) -> None:
    """Put the metadata of a package into the folder."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that packages are found in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", ["trn1.2xlarge", "inf2.xlarge"])
def test_trn1_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """By name, and with the reason."""
    (tmp_path / "product_name").write_text(f"{kind}\n")
    monkeypatch.setattr(neuron_machine, "INSTANCE_TYPE", tmp_path / "product_name")
    with pytest.raises(ModelError, match=f"{kind}: TorchNeuron.* Trn2 and Trn3 only.*trace is not supported"):
        open_neuron("", "")


def test_placeholder_is_named(site: Path) -> None:
    """PyPI has an empty package of the name, which is not what is wanted."""
    install(site, "torch-neuronx", "1.0", "WRONG PACKAGE. Please install the package from Neuron Repository")
    assert Package.find("torch-neuronx").placeholder
    with pytest.raises(ModelError, match=r"torch-neuronx 1.0: PyPI's placeholder.*pip.repos.neuron.amazonaws.com"):
        open_neuron("", "")


def test_missing_package_is_named(toy: tuple[Path, Path]) -> None:
    """Without AWS's packages the start ends with what to install."""
    settings = EngineSettings.model_construct(model=str(toy[1]), device="neuron")
    with pytest.raises(ModelError, match=r"torch-neuronx is not installed. pip install"):
        open_runner(toy[1], settings)


def test_package_without_its_libraries(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that does not load, and one that brings no device (the one for XLA), are two different messages."""
    monkeypatch.setattr(os, "environ", {"OUTRIDER_CACHE": str(tmp_path)})
    install(site, "torch-neuronx", "2.9.0", "AWS's")
    with pytest.raises(ModelError, match="does not load: No module named 'torch_neuronx'"):
        open_neuron("", "")
    (site / "torch_neuronx.py").write_text("__version__ = '2.9.0'\n")
    with pytest.raises(ModelError, match=r"torch-neuronx 2.9.0: the one for XLA"):
        open_neuron("", str(tmp_path / "neff"))
    assert os.environ["TORCH_NEURONX_NEFF_CACHE_DIR"] == str(tmp_path / "neff")
    assert (tmp_path / "neff").is_dir()


def test_rounded_weights_are_refused(toy: tuple[Path, Path]) -> None:
    """The kernels for them are the CPU's."""
    settings = EngineSettings.model_construct(model=str(toy[1]), device="neuron", quant="int8")
    with pytest.raises(ModelError, match="quant int8"):
        open_runner(toy[1], settings.model_copy(update={"quant": "int8"}))


@pytest.mark.parametrize("text", ["", "a", "3-1", "0,", "-1"])
def test_cores_that_are_none(text: str) -> None:
    """Are refused as they are written."""
    with pytest.raises(ModelError, match="neither a core"):
        parse_cores(text)


def test_a_core_is_one_process_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Overlapping ranges on one machine are found before the runtime is; a process that ends gives its cores back."""
    monkeypatch.setattr(neuron_machine, "LOCKS", tmp_path)
    taken = f"""
from pathlib import Path
from shared.model.devices.neuron import neuron_machine
neuron_machine.LOCKS = Path({str(tmp_path)!r})
neuron_machine.claim_cores(neuron_machine.parse_cores("1-3"))
print("taken", flush=True)
input()
"""
    command = [sys.executable, "-c", taken]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(ModelError, match="core 3: another process has it"):
            claim_cores(range(3, 5))
        claim_cores(range(1))
        other.communicate("\n")
    claim_cores(parse_cores("3,4"))


def test_cores_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device of Trainium2 has four logical cores, or eight where each is one physical core."""
    monkeypatch.setattr(neuron_machine, "DEVICES", tmp_path)
    (tmp_path / "neuron0").touch()
    with pytest.raises(ModelError, match="core 4: this machine has 4 logical cores, 0 to 3"):
        check_cores(range(2, 5))
    monkeypatch.setenv("NEURON_LOGICAL_NC_CONFIG", "1")
    check_cores(range(2, 5))


def test_each_rank_has_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that the ranks see together, of which there have to be as many."""
    assert own_cores("4-7") == [4, 5, 6, 7]
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "4", "RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    assert own_cores("4-7") == [6]
    with pytest.raises(ModelError, match="cores 0-7: 8 for 4 ranks"):
        own_cores("0-7")
