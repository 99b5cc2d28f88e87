"""Where the passes of a model run.

`cpu` is this machine. `simulated` computes here too, and takes the time that a given accelerator would, without taking
CPU: so scheduling, overlap and load can be measured honestly on a small machine. Whatever it reports says "simulated".
`neuron` is a fixed set of graphs, compiled by TorchNeuron, or on trial on the CPU by another backend of torch.compile.
"""

import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog
import torch
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from shared.errors import ModelError
from shared.model.engine_settings import DeviceKind, EngineSettings, Quant
from shared.model.loader import load_int4_runner, load_runner, load_static_runner
from shared.model.model_runner import ModelRunner
from shared.model.neuron import NEURON, open_neuron
from shared.model.onnx_runner import OnnxRunner
from shared.model.rows import Rows
from shared.model.runner import Runner
from shared.model.static_runner import StaticRunner
from shared.model.step import Segment
from shared.pass_cost import pass_seconds

log = structlog.get_logger()

PROFILES = Path(__file__).parent / "profiles"


@checked(frozen=True)
class Profile:
    """What a forward pass of one model takes on one accelerator, and where the figures come from."""

    source: str
    assumed: str
    """Which figures nobody has published."""
    rows: list[int]
    milliseconds: list[float]
    """Of a pass of one session with so many `rows`, which ascend; straight lines join them."""
    milliseconds_per_session: float
    """For each session of a pass beyond the first."""

    def seconds(self, num_rows: int, num_sessions: int = 1) -> float:
        """Return what a pass takes."""
        more_sessions = self.milliseconds_per_session * (num_sessions - 1)
        return (pass_seconds(self.rows, self.milliseconds, num_rows) + more_sessions) / 1000

    @classmethod
    def load(cls, name: str) -> Self:
        """Read the profile of this name, or of this path. Raises ModelError."""
        path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
        try:
            return TypeAdapter(cls).validate_python(tomllib.loads(path.read_text()))
        except (OSError, ValidationError, tomllib.TOMLDecodeError) as error:
            raise ModelError(f"profile {name}: {error}") from error


@dataclass(frozen=True)
class _Paced:
    """Runs passes, each of which takes what the profile says, or the runner's own time if that is longer."""

    runner: Runner
    profile: Profile
    device: str

    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run the segments, then sleep."""
        num_rows = sum(len(segment.token_ids) for segment in segments)
        end = time.perf_counter() + self.profile.seconds(num_rows, len(segments))
        rows = self.runner.extend(segments)
        late = time.perf_counter() - end
        if late > 0:
            log.warning("this machine is slower than the simulated device", by_ms=round(late * 1000, 1))
        time.sleep(max(0.0, -late))
        return rows

    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        """Copy, in this machine's own time."""
        return self.runner.copy(source, slot, num_tokens)


def open_runner(folder: Path, settings: EngineSettings, quant: Quant) -> ModelRunner | StaticRunner | OnnxRunner:
    """Open a Hugging Face folder, and return its runner on the device of the settings. Raises ModelError."""
    if settings.device != "neuron":
        if quant == "int4":
            return load_int4_runner(folder, settings.num_slots, settings.max_length)
        return load_runner(
            folder, settings.dtype, settings.num_slots, settings.max_length, quant, kernel=settings.kernel
        )
    if quant != "none":
        raise ModelError(f"quant {quant}: rounded weights are for CPUs, not for device neuron")
    device, name = torch.device("cpu"), f"neuron's graphs on cpu, by {settings.compile_backend}"
    if settings.compile_backend == NEURON:
        device, name = open_neuron(settings.cores, settings.compile_cache)
    return load_static_runner(folder, settings, device, name)


def on_device(runner: Runner, kind: DeviceKind, profile: str) -> Runner:
    """Return the runner as it is on a device of this kind. Raises ModelError."""
    if kind != "simulated":
        return runner
    paces = Profile.load(profile)
    name = f"simulated: {Path(profile).stem}"
    log.warning("passes take the time of another device", device=name, assumed=paces.assumed)
    return _Paced(runner, paces, name)
