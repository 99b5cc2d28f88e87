"""A model as an ONNX graph with 4-bit weights: for drafts only, whose guesses may be rough if they are quick."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from shared.errors import ModelError

GRAPH = "model.onnx"
# Each 128 weights have a scale, and a zero point: closer to the model than symmetric levels, and just as fast.
# Logits for the last row only: a draft needs no others, and in a prefill they would be a quarter of the work.
OPTIONS = ["block_size=128", "is_symmetric=false", "prune_lm_head=true"]

log = structlog.get_logger()


def can_convert() -> bool:
    """Return whether the extra `int4`, which converts and runs such graphs, is installed."""
    return find_spec("onnxruntime_genai") is not None


def convert_onnx(model: Path, folder: Path) -> None:
    """Write the Hugging Face folder `model` as an ONNX graph, with onnxruntime-genai's builder in a separate process.

    Memory: about that of the weights in float32. Raises ModelError.
    """
    log.info("rounding the weights to 4 bits, once", model=str(model))
    with TemporaryDirectory() as cache:
        places = ["--input", str(model), "--output", str(folder), "--cache_dir", cache]
        options = ["--precision", "int4", "--execution_provider", "cpu", "--extra_options", *OPTIONS]
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", *places, *options]
        done = subprocess.run(builder, check=False, capture_output=True, text=True)  # noqa: S603 - our own flags
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ModelError(f"{model}: its weights could not be rounded to 4 bits: {reason}")
