"""A backend of torch.compile that goes TorchNeuron's way as far as a CPU can, and keeps what it saw.

Dynamo, then AOTAutograd, then torch-mlir's importer, then StableHLO; there neuronx-cc would take over, and here XLA
compiles for the CPU. Keys and values are aliased, input to output, as TorchNeuron aliases what a graph mutates.
"""

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import ml_dtypes
import numpy as np
import torch
from jax.extend.backend import get_backend
from jaxlib import xla_client
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext
from torch_mlir import fx

WANTED_INTEGERS = {torch.int32, torch.bool}
aten, collectives = torch.ops.aten, torch.ops._c10d_functional
QUOTIENTS = {aten.div, aten.floor_divide, aten.remainder, aten.fmod}  # by what is no power of two: wrong, in float32
SPLITS = {aten.split_with_sizes, aten.split_with_sizes_copy, aten.unsafe_split_with_sizes}  # unequal: miscompiled
COMPARING = {"eq", "ne", "lt", "le", "gt", "ge", "where", "masked_fill", "masked_fill_"}  # with literals: refused


@dataclass
class Seen:
    """One graph, and its calls."""

    text: str = ""
    """StableHLO."""
    num_results: int = 0
    """Besides what it mutates."""
    faults: list[str] = field(default_factory=list)
    mutated: list[frozenset[int]] = field(default_factory=list)
    """Of each call, the addresses of the tensors that it mutated."""


class StableHlo:
    """The backend."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.graphs: list[Seen] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor], **_: Any) -> Callable[..., Any]:
        """Compile a graph of Dynamo's."""
        lower = aot_autograd(
            fw_compiler=partial(self._lower, literals_of(graph)),
            decompositions=fx.get_decomposition_table(),
            keep_inference_input_mutations=False,
        )
        compiled: Callable[..., Any] = lower(graph, inputs)
        return compiled

    def _lower(
        self, faults: list[str], graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]
    ) -> Callable[..., Any]:
        context = TracingContext.try_get()
        assert context
        assert context.fw_metadata
        mutated = context.fw_metadata.mutated_inp_runtime_indices
        results: Any = graph.graph.find_nodes(op="output")[0].args[0]
        seen = Seen(num_results=len(results) - len(mutated), faults=faults + faults_of(graph))
        self.graphs.append(seen)
        if seen.faults:
            return _boxed(lambda args: graph(*args))
        alone = without_collectives(graph)
        seen.text = str(fx.stateless_fx_import(alone or graph, output_type=fx.OutputType.STABLEHLO, model_name="main"))
        seen.faults += faults_of_text(seen.text)
        if alone:
            return _boxed(lambda args: graph(*args))  # XLA has no other ranks here
        execute = _compile(aliased(seen.text, mutated))

        def run(args: list[torch.Tensor]) -> list[torch.Tensor]:
            seen.mutated.append(frozenset(args[index].data_ptr() for index in mutated))
            buffers = [_to_jax(arg) for arg in args]
            before = [buffers[index].unsafe_buffer_pointer() for index in mutated]
            outputs = execute(buffers)
            if [output.unsafe_buffer_pointer() for output in outputs[: len(mutated)]] != before:
                seen.faults.append("what is mutated was moved by XLA")
            return [_to_torch(output) for output in outputs]

        return _boxed(run)


def without_collectives(graph: torch.fx.GraphModule) -> torch.fx.GraphModule | None:
    """Return the graph of a rank as if the others had what it has, since torch-mlir lowers no collective.

    None if there is none in it.
    """
    alone = deepcopy(graph)
    nodes = [node for node in alone.graph.nodes if getattr(node.target, "namespace", "") == "_c10d_functional"]
    for node in nodes:
        part, *how = node.args
        with alone.graph.inserting_before(node):
            gathers = node.target is collectives.all_gather_into_tensor.default
            same = alone.graph.call_function(aten.cat.default, ([part] * how[0],)) if gathers else part
        if gathers:
            same.meta = node.meta
        node.replace_all_uses_with(same)
        alone.graph.erase_node(node)
    alone.recompile()
    return alone if nodes else None


def literals_of(graph: torch.fx.GraphModule) -> list[str]:
    """Return where a graph of Dynamo's, as the model was written, compares with a number of Python's or chooses one."""
    return [
        f"float literal: {node.format_node()}"
        for node in graph.graph.nodes
        if getattr(node.target, "__name__", node.target) in COMPARING and any(isinstance(a, float) for a in node.args)
    ]


def faults_of(graph: torch.fx.GraphModule) -> list[str]:
    """Return what a device of fixed shapes could not run, and what neuronx-cc is known to refuse or to misread."""
    faults = []
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            faults.append(f"host sync: {node.target} brings a number to the host")
        if isinstance(value, torch.Tensor):
            if any(isinstance(size, torch.SymInt) for size in value.shape):
                faults.append(f"dynamic shape: {node.target} {tuple(value.shape)}")
            if value.dtype == torch.float64:
                faults.append(f"float64: {node.target}")
            if not value.is_floating_point() and value.dtype not in WANTED_INTEGERS:
                faults.append(f"{value.dtype}: {node.target}")
            if node.op == "placeholder" and value.dtype == torch.int32 and value.dim() == 2 and value.shape[1] == 1:
                faults.append(f"one row: {node.target} {tuple(value.shape)}")
        faults += misread(node, value)
    return faults


def misread(node: torch.fx.Node, value: Any) -> list[str]:
    """Return what is wrong with an operation: splits and quotients as others saw neuronx-cc compute them wrongly."""
    kind = getattr(node.target, "overloadpacket", None)
    faults = []
    if kind in SPLITS and len(set(node.args[1])) > 1:  # type: ignore[arg-type]  # sizes
        faults.append(f"unequal split: {node.format_node()}")
    if kind in QUOTIENTS and not (isinstance(value, torch.Tensor) and value.is_floating_point()):
        divisor = node.args[1]
        if not isinstance(divisor, int) or divisor <= 0 or divisor & (divisor - 1):
            faults.append(f"integer division: {node.format_node()}")
    return faults


def faults_of_text(text: str) -> list[str]:
    """Return likewise what StableHLO has that neuronx-cc should not get."""
    lines = [line.strip() for line in text.splitlines()]
    faults = [f"dynamic: {line}" for line in lines if re.search(r"tensor<[^>]*\?|dynamic_(?!slice|update)", line)]
    faults += [f"float64: {line}" for line in lines if "f64" in line]
    if (functions := sum("func.func" in line for line in lines)) != 1:
        faults.append(f"{functions} functions")
    return faults


def aliased(text: str, mutated: Sequence[int]) -> str:
    """Let the results that stand first take the place of the inputs that they are new values of."""
    if not mutated:
        return text
    head, body = text.split(") -> (", 1)
    for result, index in enumerate(mutated):
        head = re.sub(rf"(%arg{index}: tensor<[^>]*>)", rf"\1 {{tf.aliasing_output = {result} : i32}}", head)
    return f"{head}) -> ({body}"


def _compile(text: str) -> Callable[[Sequence[jax.Array]], list[jax.Array]]:
    client = get_backend("cpu")
    devices = xla_client.DeviceList(tuple(client.local_devices()[:1]))
    executable = client.compile_and_load(text, devices, xla_client.CompileOptions())

    def execute(buffers: Sequence[jax.Array]) -> list[jax.Array]:
        outputs = executable.execute_sharded(buffers).disassemble_into_single_device_arrays()
        return [array for (array,) in outputs]

    return execute


def _to_jax(tensor: torch.Tensor) -> jax.Array:
    """Copy, so that what XLA overwrites is its own."""
    tensor = tensor.detach().contiguous()
    bits = tensor.dtype == torch.bfloat16
    array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if bits else tensor.numpy()
    return jax.device_put(jax.numpy.array(array, copy=True))


def _to_torch(array: jax.Array) -> torch.Tensor:
    copied = np.array(array)
    if copied.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(copied.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copied)


def _boxed(run: Callable[[list[torch.Tensor]], Any]) -> Callable[..., Any]:
    run._boxed_call = True  # type: ignore[attr-defined]  # how AOTAutograd knows
    return run
