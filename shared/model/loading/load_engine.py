"""Opens a model, tries it out and describes it."""

import asyncio
import hashlib
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import structlog
import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PretrainedConfig
from transformers.utils import GENERATION_CONFIG_NAME

from shared.fingerprint import fingerprint
from shared.model.devices.cpu.kernels.processor import isa
from shared.model.devices.simulated import on_device
from shared.model.distributed.leader import lead
from shared.model.engine.engine import Engine
from shared.model.large_stack import large_stack
from shared.model.loading.open_runner import open_runner
from shared.model.loading.probes import inexact_pass
from shared.model.sampling.grammar import Grammars
from shared.model.settings import EngineSettings
from shared.model.sources import NUMERICS
from shared.pb import specdec_pb2 as pb

log = structlog.get_logger()

_ROUNDED = {"none": "", "int8": ", int8 weights and activations", "int4": ", int4 weights",
            "gguf": ", weights as in the .gguf file, int8 activations"}  # fmt: skip


async def load_engine(folder: Path, settings: EngineSettings) -> Engine:
    """Open the model, try it out and describe it. Raises ModelError."""
    worker = ThreadPoolExecutor(1, "forward")
    with large_stack():  # it follows grammars, too
        loading = asyncio.get_running_loop().run_in_executor(worker, _load, folder, settings, worker)
    return await loading


def _load(folder: Path, settings: EngineSettings, worker: Executor) -> Engine:
    if settings.threads:
        torch.set_num_threads(settings.threads)
    runner = lead(open_runner(folder, settings))
    served = on_device(runner, settings.device, settings.profile)
    config = AutoConfig.from_pretrained(folder).get_text_config()
    vocab_size = config.vocab_size
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    problem, witness = runner.inexact, b""
    if not problem:
        problem, rows = inexact_pass(runner, vocab_size)
        witness = rows.view(torch.uint8).numpy().tobytes()
    info = pb.ModelInfo(
        name=settings.model,
        vocab_size=vocab_size,
        tokenizer_size=len(vocabulary),
        tokenizer_fingerprint=fingerprint(vocabulary),
        max_length=runner.max_length,
        max_draft_tokens=settings.max_draft_tokens,
        num_slots=runner.num_slots,
        device=served.device,
        dtype=f"{settings.dtype}{_ROUNDED[runner.quant]}",
        kernel=runner.kernel,
        row_exact=not problem,
        graphs=runner.graph_choice,
        identity=pb.ModelIdentity(
            tokenizer_fingerprint=fingerprint(vocabulary),
            dtype=settings.dtype,
            quant=runner.quant,
            kernel=f"{runner.kernel} {isa()} {torch.backends.cpu.get_cpu_capability()}",
            row_exact=not problem,
            draws=runner.graph_choice.draws if runner.graph_choice else "",
            numerics=f"{NUMERICS}-{hashlib.sha256(witness).hexdigest()[:16]}" if witness else f"{NUMERICS}",
        ),
    )
    log.info(
        "model loaded",
        folder=str(folder),
        kernel=runner.kernel,
        dtype=info.dtype,
        device=info.device,
        row_exact=info.row_exact,
    )
    end_ids = sorted({*_end_token_ids(folder, config), tokenizer.eos_token_id} - {None})
    grammars = Grammars(tokenizer, vocab_size, end_ids, settings.grammar_seconds)
    engine = Engine(served, settings, info, grammars, worker)
    engine.inexact = problem and f"rows are not exact: {problem}"
    return engine


def _end_token_ids(folder: Path, config: PretrainedConfig) -> list[int]:
    """Return the tokens that end a text, from the folder's generation config or else from the model's config."""
    generates = (folder / GENERATION_CONFIG_NAME).is_file()
    ends = (GenerationConfig.from_pretrained(folder) if generates else config).eos_token_id
    return ends if isinstance(ends, list) else [ends]
