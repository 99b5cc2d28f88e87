"""Opens a model so that it runs over the slots."""

import random
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig

from shared.errors import ModelError
from shared.model.checkpoints import (
    k_quant_models,  # noqa: F401 - teaches transformers to open such weights
    rounded_models,  # noqa: F401 - likewise
)
from shared.model.checkpoints.onnx_folder import GRAPH, can_convert
from shared.model.checkpoints.pairs import int4_folder, int8_folder, own_quant
from shared.model.checkpoints.rotation import is_rotated
from shared.model.checkpoints.supported import FAMILY, default_length, own_length, refusing, served_config
from shared.model.devices.cpu import attention
from shared.model.devices.cpu.conv1d import replace_conv1d
from shared.model.devices.cpu.cpu_runner import CpuRunner
from shared.model.devices.cpu.exactness.kernel_choice import kernel_order
from shared.model.devices.cpu.exactness.linears import repack
from shared.model.devices.cpu.exactness.proof import prove
from shared.model.devices.cpu.experts import use_blocks
from shared.model.devices.cpu.fused_layers import fuse
from shared.model.devices.cpu.kernels.kernels import Kernel
from shared.model.devices.cpu.row_wise import compute_by_rows
from shared.model.devices.onnx_runner import OnnxRunner
from shared.model.devices.static import start_checks
from shared.model.devices.static.graphs import Graphs, GraphSizes
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.distributed.collective import Collective
from shared.model.distributed.kv_copies import num_copies, take_copies, whole_kv
from shared.model.distributed.parallel_layers import check_parts, take_parts
from shared.model.distributed.ranks import join, num_ranks
from shared.model.loading.cache_sizing import CacheSizing
from shared.model.loading.probes import refuse_miscomputed
from shared.model.runner import Segment
from shared.model.settings import CollectiveKind, EngineSettings, Quant

log = structlog.get_logger()

_ROUNDED = {"int8": torch.int8, "gguf": torch.uint8}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_runner(
    folder: Path,
    dtype: str,
    num_slots: int | None,
    max_length: int | None,
    quant: Quant = "none",
    *,
    kernel: str = "auto",
    cache_share: float = 0.5,
    collective: CollectiveKind = "gather",
) -> CpuRunner:
    """Open a Hugging Face folder and return its runner; max_length is capped at the model's own limit.

    Slots and length that are None are chosen by `CacheSizing`. A folder with rounded weights is opened as it is; with
    quant int8, another one is rounded first. Raises ModelError for a model that cannot be rolled back or whose
    attention ours cannot replace, and SettingError.
    """
    quant = own_quant(folder) if own_quant(folder) != "none" else quant
    if quant == "int8":
        folder = int8_folder(folder)
    elif quant != own_quant(folder):
        raise ModelError(f"quant {quant}: {folder} has no such weights")
    with CacheSizing(num_slots, max_length, cache_share) as sizing:
        return _load(folder, dtype, quant, kernel, sizing, collective)


def _load(  # noqa: PLR0917  # what a runner is made of
    folder: Path, dtype: str, quant: Quant, kernel: str, sizing: CacheSizing, collective: CollectiveKind
) -> CpuRunner:
    model, spread = _open(folder, dtype)
    order = kernel_order(model, _ROUNDED.get(quant, DTYPES[dtype]), kernel)  # before anything computes
    probe, expected = _probe(model, collective if spread else None)
    model.set_attn_implementation(attention.NAME)
    fuse(model)
    replace_conv1d(model)
    mixture = use_blocks(model)
    name, length = model.config.model_type, own_length(model.config, sizing.max_length or default_length(folder))
    trial = CpuRunner(model, 1, len(probe))
    refuse_miscomputed(trial, name, probe, expected, mixture=mixture)
    with refusing(name, "its code does not run with our linear layers"):
        # What is kept has the type that the kernel says, and the trial had that of the weights.
        kept = order[0].keys or order[0].activations
        token_bytes = trial.token_bytes * kept.itemsize // DTYPES[dtype].itemsize
        runner = _packed(model, quant, order, sizing, length, token_bytes)
        runner.extend([Segment(0, 0, probe[:1], 1)])
    if quant in _ROUNDED and runner.max_length >= len(probe):
        # Rounding takes a logit of the 1.5B off by half of their spread; what is computed wrongly, by several of it.
        refuse_miscomputed(runner, name, probe, expected, tolerance=1.5, mixture=mixture)
    return runner


def _packed(  # noqa: PLR0917  # what a runner is made of
    model: PreTrainedModel, quant: Quant, order: Sequence[Kernel], sizing: CacheSizing, length: int, token_bytes: int
) -> CpuRunner:
    """Return the runner of the model, with its linear layers replaced by ours, and then its cache made."""
    fused = quant == "int8" and is_rotated(model)
    if fused:
        from shared.model.devices.cpu import rounded_layer  # noqa: PLC0415 - numba takes a second
        from shared.model.devices.cpu.compiled_code import row_loops  # noqa: PLC0415 - likewise

        row_loops.prepare()  # before it is measured what memory is left
    proof = prove(model, order, sizing.longest(length, token_bytes))
    repack(model, proof)
    num_slots, max_length = sizing.choose(length, token_bytes)
    compute_by_rows(model, max_length)
    if fused:
        rounded_layer.fuse_rounded(model)
    counts, kernel = (proof.counts, proof.head_counts), proof.kernel.name
    if quant == "gguf":
        from shared.model.devices.cpu.k_quant_layers import fuse_k_quants  # noqa: PLC0415 - likewise

        fuse_k_quants(model)
    return CpuRunner(model, num_slots, max_length, *counts, kernel=kernel, quant=quant, inexact=proof.problem)


def load_int4_runner(
    folder: Path, num_slots: int | None, max_length: int | None, cache_share: float = 0.5
) -> OnnxRunner:
    """Round a Hugging Face folder's weights to 4 bits, once, and return the runner, with slots and length as above.

    Raises ModelError for a model that cannot be rolled back or converted, and SettingError. A graph that cannot be
    opened is not kept.
    """
    config = served_config(folder)
    if config.model_type not in FAMILY or not can_convert():
        raise ModelError(f"quant int4: for {', '.join(sorted(FAMILY))}, by onnxruntime-genai, the extra int4")
    made, length = int4_folder(folder), own_length(config, max_length or default_length(folder))
    try:
        with (
            CacheSizing(num_slots, max_length, cache_share) as sizing,
            refusing(config.model_type, "its graph of 4 bits cannot be opened"),
        ):
            runner = OnnxRunner(made / GRAPH, config, partial(sizing.choose, length))
    except ModelError:
        shutil.rmtree(made)
        raise
    probe = random.Random(0).choices(range(config.vocab_size), k=24)  # noqa: S311 - no secret
    expected = runner.extend([Segment(0, 0, probe, 1)])[0].logits
    refuse_miscomputed(runner, config.model_type, probe, expected, tolerance=0.5)
    return runner


def load_static_runner(folder: Path, settings: EngineSettings, device: torch.device, name: str) -> StaticRunner:
    """Open a Hugging Face folder on a device of fixed shapes, and compile its graphs; `name` is the device's.

    Raises ModelError for a model that cannot be rolled back or whose attention ours cannot replace.
    """
    model, spread = _open(folder, settings.dtype)
    probe, expected = _probe(model, settings.collective if spread else None)
    sizes = GraphSizes.of(settings, own_length(model.config, settings.fixed_size[1]))
    with refusing(model.config.model_type, "its graphs do not compile"):
        runner = StaticRunner(Graphs(model, sizes, device, settings.compile_backend), name)
    refuse_miscomputed(runner, model.config.model_type, probe, expected)
    with refusing(model.config.model_type, "its graphs do not compile"):
        start_checks.choose(runner)
    return runner


def _open(folder: Path, dtype: str) -> tuple[PreTrainedModel, bool]:
    """Return the model, and whether it is only this rank's part of one; nothing computes yet."""
    config, spread, whole = served_config(folder), None, {}
    if num_ranks() > 1:
        if own_quant(folder) != "none":
            raise ModelError("rounded weights are for one rank, not for several")
        check_parts(config)
        join()
        spread = DistributedConfig(tp_plan="auto")
        whole = {"config": whole_kv(config)} if num_copies(config) > 1 else {}
    with refusing(config.model_type, "transformers does not load it"):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[dtype], attn_implementation="sdpa", distributed_config=spread, **whole
        ).eval()
    if whole:
        take_copies(model)
    return model, bool(spread)


def _probe(model: PreTrainedModel, collective: CollectiveKind | None) -> tuple[list[int], torch.Tensor]:
    """Return 24 tokens and the model's own logits for them, [24, V]; then give a model that is spread our layers."""
    probe = random.Random(0).choices(range(model.config.get_text_config().vocab_size), k=24)  # noqa: S311 - no secret
    with torch.inference_mode(), refusing(model.config.model_type, "transformers does not run it"):
        expected = model(torch.tensor([probe], device=model.device)).logits[0].cpu()
    if collective:
        take_parts(model, Collective(collective))
    return probe, expected
