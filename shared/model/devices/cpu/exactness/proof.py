"""Proves a kernel exact on the layers of a model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import structlog
import torch
from pydantic import PositiveInt
from torch import nn
from transformers import PreTrainedModel

from shared.model.attention_sizes import head_dim, num_kv_heads
from shared.model.checkpoints.k_quant_linear import KQuantLinear
from shared.model.checkpoints.rounded_linear import RoundedLinear
from shared.model.devices.cpu.batch import KEY_GRAIN
from shared.model.devices.cpu.exactness.agreement import (
    COUNTS,
    HEAD_COUNTS,
    REFERENCE_ROWS,
    agreeing_counts,
    cancelling_rows,
    inexact_attention,
    some_outputs,
)
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.devices.cpu.kernels.kernels import Kernel
from shared.model.devices.cpu.kernels.processor import processor
from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT, RowCounts
from shared.model.kept import kept
from shared.model.sources import COMPUTING, sources_digest

log = structlog.get_logger()


@dataclass(frozen=True)
class Proof:
    """The kernel that a model's linear layers run on, and the row counts of their blocks."""

    kernel: Kernel
    of_layers: Mapping[str, RowCounts] = field(default_factory=dict)
    """By size of a layer."""
    counts: RowCounts = ANY_COUNT
    """Of the layer that weighs most, which passes are padded for: the others pad for themselves."""
    head_counts: RowCounts = ANY_COUNT
    """Of the output layer."""
    problem: str = ""
    """Why rows are not exact; empty where they are proved to be."""
    packed: dict[nn.Linear, KernelLinear] = field(default_factory=dict)
    """The layers that were tried: one of each size, unless the proof was kept from an earlier start."""


def prove(model: PreTrainedModel, order: Sequence[Kernel], num_positions: int) -> Proof:
    """Return the proof for the first kernel that is exact; if none is, that of the last one, with the problems.

    Kernels are tried once, on the model's own layers as they will be packed; the result is kept for the next start.
    """
    problems = []
    for kernel in order:
        proof = _prove(model, kernel, num_positions)
        if not proof.problem:
            return proof
        problems.append(f"{kernel.name}: {proof.problem}")
        log.warning("a kernel is not exact", kernel=kernel.name, problem=proof.problem)
    return Proof(order[-1], problem="; ".join(problems))  # the last one exists on every machine


def _prove(model: PreTrainedModel, kernel: Kernel, num_positions: int) -> Proof:
    if problem := kernel.problem:
        return Proof(kernel, problem=problem)
    head, packed = output_layer(model), dict[nn.Linear, KernelLinear]()
    linears: dict[str, nn.Linear] = {}
    for linear in (module for module in model.modules() if isinstance(module, nn.Linear)):
        linears.setdefault(size_of(linear, head), linear)
    heads = model.config.get_text_config().num_attention_heads
    shape = heads, num_kv_heads(model.config), head_dim(model.config), _whole_grains(num_positions)
    setup = {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    setup |= {"kernel": kernel.name, "layers": list(linears), "attention": shape, "code": sources_digest(*COMPUTING)}

    problem, of_file = "", any(isinstance(linear, KQuantLinear) for linear in linears.values())

    def find() -> dict[str, list[PositiveInt]] | None:
        nonlocal problem
        started = perf_counter()
        counts = dict[str, list[int]]()
        if not of_file:  # such layers attend by code of their own, which the probe of the whole model tries
            problem = inexact_attention(*shape, kernel.activations)
        for size, linear in linears.items():
            layer = packed[linear] = kernel.pack(linear)
            counts[size] = _agreeing(layer, linear, kernel, HEAD_COUNTS if linear is head else COUNTS)
            if REFERENCE_ROWS not in counts[size]:
                problem = f"a layer of {size}: no row counts agree"
                break
        seconds = round(perf_counter() - started, 2)
        largest = {size: max(agreeing, default=0) for size, agreeing in counts.items()}
        log.info("kernel proved", kernel=kernel.name, seconds=seconds, problem=problem, largest_blocks=largest)
        return None if problem else counts

    found = kept("proofs", json.dumps(setup), dict[str, list[PositiveInt]], find)
    if found and not all(REFERENCE_ROWS in found.get(size, ()) for size in linears):  # someone has edited the file
        found = find()
    if not found:
        return Proof(kernel, problem=problem)
    of_layers = {size: RowCounts(counts) for size, counts in found.items()}
    inner = [linear for linear in linears.values() if linear is not head]
    largest = size_of(max(inner, key=lambda linear: linear.in_features * linear.out_features), head)
    return Proof(kernel, of_layers, of_layers[largest], of_layers[size_of(head, head)], packed=packed)


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """Return the layer that computes the logits, or this rank's part of it."""
    head = model.get_output_embeddings()
    layer: nn.Linear = getattr(head, "linear", head)
    return layer


def size_of(linear: nn.Linear, head: nn.Linear) -> str:
    """Return what decides which code path a kernel takes for a layer."""
    notes = " with bias" if linear.bias is not None else ""
    if isinstance(linear, KQuantLinear):
        notes += f" in {' and '.join(form.name for form, _ in linear.parts)}"
    notes += f" in blocks of {linear.block}" if isinstance(linear, RoundedLinear) and linear.block > 1 else ""
    return f"{linear.in_features} to {linear.out_features}{notes}{', the output' if linear is head else ''}"


def _agreeing(layer: KernelLinear, linear: nn.Linear, kernel: Kernel, counts: Sequence[int]) -> list[int]:
    some = some_outputs(linear.out_features, linear.in_features)
    bias = None if linear.bias is None else linear.bias.detach()[some]
    weights = linear.weights(some) if isinstance(linear, KQuantLinear) else linear.weight.detach()[some]
    x = cancelling_rows(weights, bias, max(counts) + REFERENCE_ROWS)
    return agreeing_counts(layer, x.to(kernel.activations), counts)


def _whole_grains(num_positions: int) -> int:
    return -(-num_positions // KEY_GRAIN) * KEY_GRAIN
