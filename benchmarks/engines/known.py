"""The engines that Outrider is measured beside, on the models that the flags choose."""

import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from gguf import GGUFReader, LlamaFileType

from benchmarks.engines.engine import Engine
from benchmarks.machine import ROOT
from scripts.stack import folders, status
from shared.model.checkpoints.download import PUBLISHED
from shared.model.checkpoints.pairs import PAIRS, own_quant
from shared.model.checkpoints.weights_hash import weights_hash
from shared.model.kept import cache

ENVIRONMENTS = ROOT / "build" / "peers"
MODES = ("plain", "draft", "lookup")


class UnavailableError(Exception):
    """Why an engine cannot take part."""


def transformers(args: Namespace) -> Engine:
    """Return transformers, in our own environment. Raises UnavailableError."""
    target, draft = _unrounded(args)
    command = (sys.executable, "-m", "benchmarks.engines.transformers_peer")
    models = (str(target), str(draft), str(assistant_k(args)), args.dtype)
    return Engine("transformers", args.dtype, command, models, _modes(draft)[:2], keeps_prompts=False)


def llama_cpp(args: Namespace) -> Engine:
    """Return llama.cpp, on the .gguf files that our models are made from. Raises UnavailableError."""
    command = _command("llama_cpp")
    pair = PAIRS.get(args.pair, ("", ""))
    target, draft = (_gguf(given or of_pair) for given, of_pair in zip((args.target, args.draft), pair, strict=True))
    if target is None:
        raise UnavailableError("the target is no .gguf file")
    file_type = GGUFReader(target).fields["general.file_type"].contents()
    weights = LlamaFileType(file_type).name.removeprefix("MOSTLY_")
    return Engine("llama.cpp", weights, command, (str(target), str(draft), str(assistant_k(args))), _modes(draft))


def openvino(args: Namespace) -> Engine:
    """Return OpenVINO GenAI, on our models rounded to 4 bits by its own tools, once. Raises UnavailableError."""
    command = _command("openvino")
    target, draft = _unrounded(args)
    models = (str(_exported(target)), str(draft and _exported(draft)), str(assistant_k(args)))
    return Engine("OpenVINO GenAI", "int4", command, models, _modes(draft))


ENGINES: Mapping[str, Callable[[Namespace], Engine]] = {
    "transformers": transformers,
    "llama_cpp": llama_cpp,
    "openvino": openvino,
}


def assistant_k(args: Namespace) -> int:
    """Return how many tokens their drafts draft: our k if it is a number, otherwise 4."""
    return 4 if args.k == "auto" else int(args.k)


def _unrounded(args: Namespace) -> tuple[Path, Path | None]:
    """Return target and draft without what only our own code reads, however we serve them. Raises UnavailableError."""
    target, draft = folders(Namespace(**vars(args) | {"target_quant": "none"}))
    if (quant := own_quant(target)) != "none":
        raise UnavailableError(f"{target.name} has weights that only Outrider reads: {quant}")
    return target, draft


def _modes(draft: Path | None) -> tuple[str, ...]:
    return tuple(mode for mode in MODES if draft or mode != "draft")


def _command(name: str) -> tuple[str, ...]:
    if not (ENVIRONMENTS / name / ".ready").exists():
        raise UnavailableError("not installed: `make peers`")
    return (str(ENVIRONMENTS / name / "bin" / "python"), "-m", f"benchmarks.engines.{name}_peer")


def _gguf(name: str) -> Path | None:
    """Return the .gguf file that a model of this name is made from, if there is one."""
    file = cache("models") / f"{name}.gguf" if name in PUBLISHED else Path(name).expanduser()
    return file if file.suffix == ".gguf" and file.is_file() else None


def _exported(model: Path) -> Path:
    """Return the folder of this model for OpenVINO, with weights of 4 bits, made if need be."""
    folder = cache("peers") / f"{model.name}-{weights_hash(model)[:8]}-openvino-int4"
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    export = [str(ENVIRONMENTS / "openvino" / "bin" / "optimum-cli"), "export", "openvino", f"--model={model}"]
    export += ["--task=text-generation-with-past", "--weight-format=int4", str(unfinished)]
    with status(f"exporting {model.name} to OpenVINO"):
        done = subprocess.run(export, capture_output=True, text=True, check=False)  # noqa: S603 - nothing from outside
    if done.returncode:
        raise UnavailableError(f"{model.name} is not exported: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    unfinished.rename(folder)
    return folder
