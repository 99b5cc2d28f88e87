"""`doctor`: reports what this machine has for device neuron, what fits, and what to install."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table

from shared.model.checkpoints.pairs import resolve_half
from shared.model.checkpoints.supported import own_length, served_config
from shared.model.commands.footprint import GB, TRN2_CORE_GB, Footprint
from shared.model.commands.reload_trial import Run, run_processes
from shared.model.devices.neuron.neuron_device import cache_folder
from shared.model.devices.neuron.neuron_machine import (
    INSTALL,
    PACKAGES,
    UNSUPPORTED,
    Package,
    instance_type,
    logical_core,
    num_cores,
    num_devices,
)
from shared.model.devices.static.graphs import GraphSizes
from shared.model.distributed.ranks import num_ranks
from shared.model.loading.load_runner import DTYPES
from shared.model.settings import EngineSettings

DRIVER = Path("/sys/module/neuron/version")
RUNTIME = Path("/opt/aws/neuron/lib")
PYTHONS = ((3, 12), (3, 14))


class DoctorSettings(EngineSettings):
    """What the doctor examines; without a model, only the machine."""

    model: str = ""
    """A model whose memory use to estimate."""
    machine: bool = True
    """Examine the machine and its packages."""
    reload_seconds: float = Field(0, ge=0)
    """Try if a small graph runs from the cache in a second set of processes; each set may take so long. 0 does not."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    found: str
    advice: str = ""
    """What to do about it; empty if nothing."""


def machine_findings() -> Iterator[Finding]:
    """Examine the machine."""
    kind = instance_type()
    refused = "device neuron wants Trn2 or Trn3" if kind.startswith(UNSUPPORTED) or not kind.startswith("trn") else ""
    yield Finding("instance type", kind or "unknown", refused)
    no_device = "" if num_devices() else "the driver shows no /dev/neuron*: on Trn2, install aws-neuronx-dkms"
    yield Finding("devices", str(num_devices()), no_device)
    yield Finding("logical cores", f"{num_cores()}, of {logical_core()} physical each")
    yield Finding("cores of this process", os.environ.get("NEURON_RT_VISIBLE_CORES") or "all, or as --cores says")
    driver = DRIVER.read_text().strip() if DRIVER.exists() else ""
    yield Finding("driver", driver or "none", "" if driver else "install aws-neuronx-dkms")
    runtime = bool(list(RUNTIME.glob("libnrt.so*")))
    yield Finding("runtime", str(RUNTIME) if runtime else "none", "" if runtime else "install aws-neuronx-runtime-lib")
    tools = shutil.which("neuron-ls") or ""
    yield Finding("tools", tools or "none", "" if tools else "install aws-neuronx-tools")


def package_findings() -> Iterator[Finding]:
    """Examine Python and the SDK's packages."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    within = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    yield Finding("Python", python, "" if within else "AWS's packages are for Python 3.12 to 3.14")
    yield Finding("torch", torch.__version__)
    for package in map(Package.find, PACKAGES):
        if package.placeholder:
            found = f"{package.version}: PyPI's placeholder, an empty package of this name"
            yield Finding(package.name, found, f"pip uninstall {package.name}; {INSTALL}")
        else:
            yield Finding(package.name, package.version or "not installed", "" if package.version else INSTALL)


def cache_finding(settings: EngineSettings) -> Finding:
    """Examine the cache of compiled graphs."""
    folder = cache_folder(settings.compile_cache)
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = os.access(nearest, os.W_OK)
    num_files = sum(path.is_file() for path in folder.rglob("*")) if folder.exists() else 0
    return Finding("compile cache", f"{folder}: {num_files} files", "" if writable else f"{nearest} is not writable")


def fit_finding(settings: EngineSettings, half: int) -> Finding:
    """Estimate the memory that the model and its slots need. Raises ModelError."""
    config = served_config(resolve_half(settings.model, half))
    sizes = GraphSizes.of(settings, own_length(config, settings.fixed_size[1]))
    needs = Footprint.of(config, DTYPES[settings.dtype], sizes)
    parts = {"weights": needs.weights, "keys and values": needs.cache, "logits": needs.logits}
    found = ", ".join(f"{name} {size / GB:.2f}" for name, size in parts.items())
    has = TRN2_CORE_GB * logical_core() / 2
    fits = needs.total <= has * GB
    advice = f"more than the {has:g} GB of a logical core: fewer slots, a shorter max-length, or more ranks by torchrun"
    return Finding("memory, GB", f"{found}: {needs.total / GB:.2f} of {has:g}", "" if fits else advice)


def reload_finding(settings: DoctorSettings) -> Finding:
    """Compile a small graph, as many ranks as there are, and run it again in processes that find it in the cache."""
    what = f"graph of other processes, {num_ranks()} ranks" + (f", {settings.collective}" if num_ranks() > 1 else "")
    runs: list[Run] = []
    with TemporaryDirectory() as cache:
        for turn in ("compiled", "from the cache"):
            run = run_processes(settings, cache, settings.reload_seconds)
            if isinstance(run, str):
                other = "all_reduce" if settings.collective == "gather" else "gather"
                advice = f"try --collective={other}" if num_ranks() > 1 else "the log of the runtime may say why"
                return Finding(what, f"{turn}: {run}", advice)
            runs.append(run)
    found = ", then ".join(f"{run.seconds:.1f} s" for run in runs)
    same = runs[0].digest == runs[1].digest
    return Finding(
        what, f"{found}: {'the same' if same else 'OTHER'} bits", "" if same else "do not serve from a cache"
    )


def doctor_findings(settings: DoctorSettings, half: int) -> Iterator[Finding]:
    """Examine what the settings ask for. Raises ModelError."""
    if settings.machine:
        yield from (*machine_findings(), *package_findings(), cache_finding(settings))
    if settings.model:
        yield fit_finding(settings, half)
    if settings.reload_seconds:
        yield reload_finding(settings)


def doctor(settings: DoctorSettings, half: int) -> int:
    """Print the report; return how many findings need action. Raises ModelError."""
    findings = list(doctor_findings(settings, half))
    table = Table("what", "found", "what to do")
    for finding in findings:
        table.add_row(finding.what, finding.found, finding.advice or "-")
    Console().print(table)
    return sum(bool(finding.advice) for finding in findings)
