"""What a machine has for Neuron: devices, packages, and which cores are in use."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from filelock import FileLock, Timeout

from shared.errors import ModelError

INSTANCE_TYPE = Path("/sys/devices/virtual/dmi/id/product_name")
DEVICES = Path("/dev")
LOCKS = Path(tempfile.gettempdir()) / "outrider-neuron-cores"
PACKAGES = ("torch-neuronx", "neuronx-cc", "nki")
UNSUPPORTED = ("inf1", "inf2", "trn1")
INSTALL = (
    'pip install --upgrade "torch-neuronx==2.13.*" "neuronx-cc==2.*" nki'
    " --extra-index-url https://pip.repos.neuron.amazonaws.com"
)
CORES_PER_DEVICE = 8  # of Trainium2, physical
_held: list[FileLock] = []  # for the life of the process


@dataclass(frozen=True)
class Package:
    """An installed package of the Neuron SDK."""

    name: str
    version: str  # empty if it is not installed
    placeholder: bool
    """Whether it is the empty package of this name on PyPI instead of AWS's."""

    @classmethod
    def find(cls, name: str) -> "Package":
        """Look it up without importing it."""
        try:
            found = metadata(name)
        except PackageNotFoundError:
            return cls(name, "", placeholder=False)
        return cls(name, found["Version"], "WRONG PACKAGE" in str(found).upper())


def instance_type() -> str:
    """Return the EC2 instance type, or another name that the machine reports; empty if it reports none."""
    try:
        return INSTANCE_TYPE.read_text().strip()
    except OSError:
        return ""


def num_devices() -> int:
    """Return how many Neuron devices the driver shows."""
    return sum(bool(re.fullmatch(r"neuron\d+", path.name)) for path in DEVICES.glob("neuron*"))


def logical_core() -> int:
    """Return how many physical cores make up a logical one: 2, unless NEURON_LOGICAL_NC_CONFIG is 1."""
    return int(os.environ.get("NEURON_LOGICAL_NC_CONFIG") or 2)


def num_cores() -> int:
    """Return how many logical cores the devices have together."""
    return num_devices() * CORES_PER_DEVICE // logical_core()


def parse_cores(text: str) -> list[int]:
    """Parse `2`, `0-3`, or several of these separated by commas. Raises ModelError."""
    cores: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        span = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not span:
            raise ModelError(f"cores {text!r}: neither a core, as 2, nor a range, as 0-3")
        cores += span
    return cores


def check_cores(cores: Sequence[int]) -> None:
    """Raise ModelError if this machine does not have them."""
    if num_devices() and max(cores) >= num_cores():
        raise ModelError(f"core {max(cores)}: this machine has {num_cores()} logical cores, 0 to {num_cores() - 1}")


def claim_cores(cores: Sequence[int]) -> None:
    """Claim these cores for this process until it ends. A core belongs to one process only.

    Raises ModelError if another Outrider process on this machine has one of them.
    """
    LOCKS.mkdir(exist_ok=True)
    for core in cores:
        lock = FileLock(LOCKS / str(core))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            problem = "another process has it; draft and target on one machine want ranges that do not overlap"
            raise ModelError(f"core {core}: {problem}") from None
        _held.append(lock)


def check_machine() -> None:
    """Raise ModelError, which says what to do, if device `neuron` cannot run here."""
    if instance_type().startswith(UNSUPPORTED):
        problem = "TorchNeuron, which device neuron stands on, runs on Trn2 and Trn3 only"
        raise ModelError(f"{instance_type()}: {problem}; the older torch_neuronx.trace is not supported")
    for package in map(Package.find, PACKAGES):
        if package.placeholder:
            problem = "PyPI's placeholder of that name, and not AWS's package"
            raise ModelError(f"{package.name} {package.version}: {problem}. {INSTALL}")
    if not Package.find("torch-neuronx").version:
        raise ModelError(f"device neuron: torch-neuronx is not installed. {INSTALL}")
