"""Run by test_isas.py in a separate process: checks that rows are exact in layers of real sizes, whatever their number.

Prints one line of JSON per kernel and layer. `counts` is what the proof at a start finds, of the numbers of rows up to
the largest given; beyond it, the layer is used as a model uses it, with other weights and rows, at each given number of
rows, and every row is compared.
"""

import argparse
import json
import sys

import torch
from torch import nn

from shared.model.devices.cpu.exactness.agreement import (
    COUNTS,
    HEAD_COUNTS,
    REFERENCE_ROWS,
    agreeing_counts,
    cancelling_rows,
    some_outputs,
)
from shared.model.devices.cpu.kernels.kernels import Kernel, kernels
from shared.model.devices.cpu.kernels.row_counts import RowCounts

HEAD = 100_000  # outputs: only output layers have more


def check(kernel: Kernel, inputs: int, outputs: int, numbers_of_rows: list[int]) -> dict[str, object]:
    """Prove a layer as at a start, then run it at each number of rows."""
    linear = nn.Linear(inputs, outputs, bias=outputs < HEAD, device="meta")
    generator = torch.Generator().manual_seed(outputs)
    block = torch.randn(min(outputs, 1 << 14), inputs, generator=generator)
    weight = block.repeat(-(-outputs // len(block)), 1)[:outputs]
    linear.weight = nn.Parameter(weight.to(kernel.weights), requires_grad=False)
    if linear.bias is not None:
        linear.bias = nn.Parameter(torch.randn(outputs, generator=generator).to(kernel.weights), requires_grad=False)
    layer, some = kernel.pack(linear), some_outputs(outputs, inputs)
    counts = [count for count in (HEAD_COUNTS if outputs >= HEAD else COUNTS) if count <= max(numbers_of_rows)]
    bias = None if linear.bias is None else linear.bias[some]
    proving = cancelling_rows(linear.weight[some], bias, max(counts) + REFERENCE_ROWS).to(kernel.activations)
    agreeing = agreeing_counts(layer, proving, counts)
    report: dict[str, object] = {"kernel": kernel.name, "layer": f"{inputs} to {outputs}", "counts": agreeing}
    if REFERENCE_ROWS not in agreeing:
        return report | {"inexact": "all"}
    layer.counts = RowCounts(agreeing)
    other = some_outputs(outputs, inputs)[:-1] + 1  # not the ones that the proof used
    rows = cancelling_rows(linear.weight[other], None if bias is None else linear.bias[other], max(numbers_of_rows))
    x = rows.to(kernel.activations)
    whole = layer(x)
    wrong = [n for n in numbers_of_rows if not torch.equal(layer(x[:n]), whole[:n])]
    return report | {"inexact": wrong}


def main() -> None:
    """Check."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--rows", required=True)
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("cases", nargs="+", help="dtype:kernels:layers; kernels: first, which is preferred here, or all")
    args = flags.parse_args()
    torch.set_num_threads(args.threads)
    for dtype, which, layers in (case.split(":") for case in args.cases):
        usable = [kernel for kernel in kernels(getattr(torch, dtype)) if not kernel.isa and not kernel.problem]
        for kernel in usable if which == "all" else usable[:1]:
            for layer in layers.split(","):
                inputs, outputs = map(int, layer.split("x"))
                report = {"dtype": dtype} | check(kernel, inputs, outputs, [int(n) for n in args.rows.split(",")])
                sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
