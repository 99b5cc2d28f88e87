"""A small graph, with what ranks do together in it: compiled in one set of processes, run from the cache in another.

On Neuron, others saw cached graphs that gather hang in every process but the one that compiled them.
"""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.distributed as dist

from shared.model.devices.neuron.neuron_device import NEURON, open_neuron
from shared.model.devices.static.graphs import compiled
from shared.model.distributed.collective import Collective
from shared.model.distributed.ranks import num_ranks, rank
from shared.model.settings import EngineSettings

SIZE = 256


class TrialSettings(EngineSettings):
    """What the graph is compiled for; it has no model."""

    model: str = ""
    """Not used."""


@dataclass(frozen=True)
class Run:
    """What rank 0 of one set of processes found."""

    seconds: float
    """Of the first call, in which the graph is compiled or found in the cache."""
    digest: str
    """Of the result's bits."""


def run_processes(settings: EngineSettings, cache: str, seconds: float) -> Run | str:
    """Run the graph in as many new processes as there are ranks, with this cache; return why not if they fail."""
    module = ["-m", __name__]
    if num_ranks() > 1:
        module = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks()}", *module]
    flags = [
        f"--{name}={getattr(settings, name.replace('-', '_'))}" for name in ("compile-backend", "collective", "cores")
    ]
    launched = ("TORCHELASTIC_", "MASTER_", "GROUP_", "ROLE_", "LOCAL_", "RANK", "WORLD_SIZE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(launched)}
    command = [sys.executable, *module, *flags, f"--compile-cache={cache}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=inherited, **pipes) as process:  # type: ignore[call-overload]  # noqa: S603 - ours
        try:
            printed, problem = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # by which torchrun ends its own, within 30 s
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=40)
            process.kill()
            return f"no end after {seconds:g} s"
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    return Run(**json.loads(lines[-1])) if lines and not process.returncode else problem.strip()[-300:] or "no result"


def main() -> None:
    """Compile and run the graph; rank 0 prints what it found."""
    settings = TrialSettings.load()
    on_neuron = settings.compile_backend == NEURON
    device = open_neuron(settings.cores, settings.compile_cache)[0] if on_neuron else torch.device("cpu")
    if num_ranks() > 1:
        dist.init_process_group(NEURON if on_neuron else "gloo")
    collective = Collective(settings.collective).to(device)
    seed = torch.Generator().manual_seed(rank())
    x, w = (torch.randn(SIZE, SIZE, generator=seed).to(device) for _ in range(2))

    def graph(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        part = x @ w
        return collective.summed(part) if collective.size > 1 else part

    started = perf_counter()
    with torch.no_grad():
        result = compiled(graph, settings.compile_backend)(x, w).cpu()
    seconds = perf_counter() - started
    if not rank():
        sys.stdout.write(
            json.dumps({"seconds": seconds, "digest": hashlib.sha256(result.numpy().tobytes()).hexdigest()})
        )
    if num_ranks() > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
