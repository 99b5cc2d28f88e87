"""Opens a model so that it runs over the slots."""

import random
from pathlib import Path

import structlog
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig

from shared.errors import ModelError
from shared.model import attention
from shared.model.conv1d import replace_conv1d
from shared.model.engine_settings import EngineSettings, Quant
from shared.model.experts import use_blocks
from shared.model.fused import FAMILY, fuse
from shared.model.graphs import Graphs, GraphSizes
from shared.model.linears import repack
from shared.model.model_runner import MAX_ROWS, ModelRunner
from shared.model.onnx_folder import GRAPH, can_convert
from shared.model.onnx_runner import OnnxRunner
from shared.model.pairs import int4_folder
from shared.model.parts import check_parts, take_parts
from shared.model.ranks import join, num_ranks
from shared.model.row_counts import RowCounts
from shared.model.runner import Runner
from shared.model.static_runner import StaticRunner
from shared.model.step import Segment
from shared.model.supported import own_length, refusing, served_config

log = structlog.get_logger()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_runner(folder: Path, dtype: str, num_slots: int, max_length: int, quant: Quant = "none") -> ModelRunner:
    """Open a Hugging Face folder and return its runner; max_length is cut to the model's own.

    Raises ModelError for a model that cannot be rewound or that our attention does not compute.
    """
    model, probe, expected = _open(folder, dtype)
    model.set_attn_implementation(attention.NAME)
    fuse(model)
    replace_conv1d(model)
    use_blocks(model)
    any_count = RowCounts(range(1, MAX_ROWS + 1))
    _refuse_miscomputed(ModelRunner(model, 1, len(probe), any_count), model.config.model_type, probe, expected)
    row_counts = any_count if quant != "none" else RowCounts.exact(DTYPES[dtype], MAX_ROWS)
    with refusing(model.config.model_type, "its code does not run with our linear layers"):
        repack(model, quant)
        runner = ModelRunner(model, num_slots, own_length(model.config, max_length), row_counts)
        runner.extend([Segment(0, 0, probe[:1], 1)])
    return runner


def load_int4_runner(folder: Path, num_slots: int, max_length: int) -> OnnxRunner:
    """Round the weights of a Hugging Face folder to 4 bits, once, and return the runner; max_length is cut likewise.

    Raises ModelError for a model that cannot be rewound or that cannot be had so.
    """
    config = served_config(folder)
    if config.model_type not in FAMILY or not can_convert():
        raise ModelError(f"quant int4: for {', '.join(sorted(FAMILY))}, by onnxruntime-genai, the extra int4")
    runner = OnnxRunner(int4_folder(folder) / GRAPH, config, num_slots, own_length(config, max_length))
    probe = random.Random(0).choices(range(config.vocab_size), k=24)  # noqa: S311 - no secret
    expected = runner.extend([Segment(0, 0, probe, 1)])[0].logits
    _refuse_miscomputed(runner, config.model_type, probe, expected, tolerance=0.5)
    return runner


def load_static_runner(folder: Path, settings: EngineSettings, device: torch.device, name: str) -> StaticRunner:
    """Open a Hugging Face folder on a device of fixed shapes, which is called so, and compile its graphs.

    Raises ModelError for a model that cannot be rewound or that our attention does not compute.
    """
    model, probe, expected = _open(folder, settings.dtype)
    sizes = GraphSizes.of(settings, own_length(model.config, settings.max_length))
    with refusing(model.config.model_type, "its graphs do not compile"):
        runner = StaticRunner(Graphs(model, sizes, device, settings.compile_backend), name)
    _refuse_miscomputed(runner, model.config.model_type, probe, expected)
    return runner


def row_exact(runner: Runner, num_slots: int, vocab_size: int) -> bool:
    """Return whether a row's logits are the same bits in a prefill, in a verify, alone, and beside other sessions.

    Runs a few forward passes in the first and the last slot, whose contents are lost.
    """
    tokens = random.Random(1).choices(range(vocab_size), k=72)  # noqa: S311 - no secret
    last = num_slots - 1
    prefilled = runner.extend([Segment(0, 0, tokens, 12)])[0].logits  # rows 60 to 71, across a key grain
    for start, size, beside in ((60, 1, 0), (61, 5, 0), (66, 2, 7), (60, 9, 3), (69, 1, 1), (60, 12, 40)):
        others = [Segment(last, 0, tokens[:beside], 0)] if beside and last else []
        logits = runner.extend([Segment(0, start, tokens[start : start + size], size), *others])[0].logits
        if not torch.equal(logits, prefilled[start - 60 : start - 60 + size]):
            log.warning("rows are not exact: rounding may make output depend on k and load", rows=size, start=start)
            return False
    return True


def _open(folder: Path, dtype: str) -> tuple[PreTrainedModel, list[int], torch.Tensor]:
    """Return the model, or this rank's part of it, and the probe."""
    config, spread = served_config(folder), None
    if num_ranks() > 1:
        check_parts(config)
        join()
        spread = DistributedConfig(tp_plan="auto")
    with refusing(config.model_type, "transformers does not load or run it"):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[dtype], attn_implementation="sdpa", distributed_config=spread
        ).eval()
        probe, expected = _probe(model)
    if spread:
        take_parts(model)
    return model, probe, expected


def _probe(model: PreTrainedModel) -> tuple[list[int], torch.Tensor]:
    """Return 24 tokens and the logits that the model itself computes of them, [24, V]."""
    probe = random.Random(0).choices(range(model.config.get_text_config().vocab_size), k=24)  # noqa: S311 - no secret
    with torch.inference_mode():
        return probe, model(torch.tensor([probe], device=model.device)).logits[0].cpu()


def _refuse_miscomputed(
    runner: Runner, name: str, probe: list[int], expected: torch.Tensor, tolerance: float | None = None
) -> None:
    """Run the probe with a wrong draft that is rolled back, and compare its last rows with those expected, [n, V]."""
    num_rows = min(8, len(expected))
    expected = expected[-num_rows:]
    with refusing(name, "its code does not run with our cache and attention"):
        runner.extend([Segment(0, 0, probe[:16], 0)])
        runner.extend([Segment(0, 16, list(reversed(probe[16:])), 0)])
        computed = runner.extend([Segment(0, 16, probe[16:], num_rows)])[0].logits
    difference = float((computed.float() - expected.float()).abs().max())
    scale = float(expected.float().std())
    tolerance = tolerance or (0.5 if expected.dtype == torch.bfloat16 else 0.01)
    if not difference <= scale * tolerance:
        raise ModelError(f"{name}: over the slot cache its logits are off by {difference:.3g} (spread {scale:.3g})")
