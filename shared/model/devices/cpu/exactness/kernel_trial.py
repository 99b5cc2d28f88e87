"""Tries the kernels of this processor on layers of given sizes: `python -m target_service kernels --help`.

It runs in a separate process, since oneDNN's instruction set is fixed at its first use in a process.
"""

import argparse
import json
import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import torch
from torch import nn

from shared.model.devices.cpu.exactness.agreement import REFERENCE_ROWS, agreeing_counts, cancelling_rows, some_outputs
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.devices.cpu.kernels.kernels import Kernel, named_kernel
from shared.model.devices.cpu.kernels.row_counts import RowCounts

ROWS = (8, 64)  # of a verify, and of a chunk of a prompt
_COUNTS = (2, 8, 16, 32, 64)  # enough for a trial: the proof comes later, on the model's own layers
_TURNS = 6  # per kernel; the shortest time counts: disturbances only make a product slower


@dataclass(frozen=True)
class Trial:
    """The result of trying a kernel."""

    kernel: str
    problem: str = ""
    """Why it cannot be used; empty if it can."""
    milliseconds: Sequence[float] = ()
    """Of all layers once, for each of ROWS; infinite if it was interrupted by other processes each time."""

    @property
    def cost(self) -> float:
        """The time to compare kernels by: a reply has about eight verifies for each chunk of its prompt."""
        verify, chunk = self.milliseconds
        return verify + chunk / 8


class Candidate:
    """A kernel, and random layers to multiply by."""

    def __init__(self, kernel: Kernel, sizes: Sequence[tuple[int, int]]) -> None:
        """Pack one layer of each of these sizes, (in, out)."""
        self.kernel, self.problem = kernel, kernel.problem
        self._layers = [] if self.problem else [_layer(kernel, *size) for size in sizes]
        for layer in self._layers:
            if not layer.counts.counts:
                self.problem = f"not exact for {layer.in_features} to {layer.out_features}"
        self._least = {num_rows: [math.inf] * len(sizes) for num_rows in ROWS}

    def take_turn(self) -> None:
        """Multiply by each layer, evicting the others' weights from the CPU's cache, and keep the shortest times."""
        for num_rows, least in self._least.items():
            for index, layer in enumerate(self._layers):
                x = torch.randn(num_rows, layer.in_features).to(self.kernel.activations)
                preempted, started = _preempted(), perf_counter()
                layer(x)
                seconds = perf_counter() - started
                if _preempted() == preempted:
                    least[index] = min(least[index], seconds)

    @property
    def trial(self) -> Trial:
        """The result so far."""
        milliseconds = [] if self.problem else [round(sum(least) * 1000, 3) for least in self._least.values()]
        return Trial(self.kernel.name, self.problem, milliseconds)


def _preempted() -> int:
    """Return how often this process had to yield a core to another process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _layer(kernel: Kernel, num_inputs: int, num_outputs: int) -> KernelLinear:
    linear = nn.Linear(num_inputs, num_outputs, bias=False, device="meta")
    weight = torch.randn(num_outputs, num_inputs, generator=torch.Generator().manual_seed(0))
    linear.weight = nn.Parameter(weight.to(kernel.weights), requires_grad=False)
    layer = kernel.pack(linear)
    some = linear.weight[some_outputs(num_outputs, num_inputs)]
    x = cancelling_rows(some, None, max(_COUNTS) + REFERENCE_ROWS).to(kernel.activations)
    layer.counts = RowCounts(agreeing_counts(layer, x, _COUNTS))
    return layer


def try_kernels(names: Sequence[str], dtype: torch.dtype, sizes: Sequence[tuple[int, int]]) -> list[Trial]:
    """Try kernels of one instruction set in turns, so that other load disturbs all of them equally."""
    kernels = [named_kernel(name, dtype) for name in names]
    for kernel in kernels:
        kernel.enter()
    candidates = [Candidate(kernel, sizes) for kernel in kernels]
    for _ in range(_TURNS):
        for candidate in candidates:
            if not candidate.problem:
                candidate.take_turn()
    return [candidate.trial for candidate in candidates]


def main() -> None:
    """Print one line of JSON per trial."""
    flags = argparse.ArgumentParser(prog="python -m target_service kernels", description=main.__doc__)
    flags.add_argument("kernels", nargs="+", help="their names, all of one instruction set")
    flags.add_argument("--dtype", default="bfloat16", help="of the weights")
    flags.add_argument("--threads", type=int, default=0, help="0 leaves it to torch")
    flags.add_argument("--sizes", default="1536x17920,8960x1536", help="inputs x outputs of layers")
    args = flags.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = [(int(size[0]), int(size[1])) for size in (size.split("x") for size in args.sizes.split(","))]
    for trial in try_kernels(args.kernels, getattr(torch, args.dtype), sizes):
        sys.stdout.write(json.dumps(asdict(trial)) + "\n")


if __name__ == "__main__":
    main()
