"""Finds models by name, and brings them into the cache: `python -m shared.model.checkpoints.pairs qwen-coder`.

A name is a local folder, a `.gguf` file, a model or pair known here, or the id of a repository on the hub. Models that
must be converted or generated are made once, under OUTRIDER_CACHE (~/.cache/outrider); other processes wait for it.
"""

# ruff: noqa: PLC0415 - a model that is in the cache needs none of the heavy imports

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from filelock import FileLock

from shared.errors import ModelError
from shared.model.checkpoints.download import PUBLISHED, download_gguf
from shared.model.checkpoints.weights_hash import file_hash, weights_hash
from shared.model.kept import cache
from shared.model.settings import Quant

TARGET, DRAFT = 0, 1
TOY = "toy"
PAIRS = {"qwen-coder": ("qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b")}  # target, draft
FORMATS = {"toy": 1, "gguf": 2, "onnx": 2, "int8": 3, "k-quant": 2}
"""The versions of what `toy_pair`, `gguf_folder`, `onnx_folder`, `int8_folder` and `k_quant_folder` make. Raise one
when its module's output changes: then everything is made again, from the .gguf files kept next to it."""
INT8, K_QUANT = "outrider-int8", "outrider-gguf"  # the quant_method of a config.json
_KINDS: dict[Quant, str] = {"none": "gguf", "int8": "int8", "gguf": "k-quant"}  # what is made of a .gguf file
HUB_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]


def resolve_pair(name: str) -> tuple[Path, Path]:
    """Return the folders of the pair's target and draft, made or downloaded if need be. Raises ModelError."""
    if name == TOY:
        folder = _toy()
        return folder / "target", folder / "draft"
    if name not in PAIRS:
        raise ModelError(f"{name}: no such pair; there are {', '.join([TOY, *PAIRS])}")
    target, draft = PAIRS[name]
    return resolve_model(target), resolve_model(draft)


def resolve_half(name: str, half: int, *, quant: Quant = "none") -> Path:
    """Return the folder of a model, or of a pair's TARGET or DRAFT if the name is a pair's.

    With quant int8, its weights are rounded to 8 bits, if need be, once; with gguf, they stay as a .gguf file has them.
    Raises ModelError.
    """
    if Path(name).is_dir() or name not in {TOY, *PAIRS}:
        return resolve_model(name, quant=quant)
    return resolve_model(str(_toy() / ("target", "draft")[half]) if name == TOY else PAIRS[name][half], quant=quant)


def resolve_model(name: str, *, quant: Quant = "none") -> Path:
    """Return the model's folder, made or downloaded if need be; `quant` as above. Raises ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name}: this folder is no model, it has no config.json")
        return _in_form(path, quant)
    if path.suffix == ".gguf":
        return _of_file(path, quant=quant)
    if name in PUBLISHED:
        return _of_published(name, quant=quant)
    return _in_form(_of_hub(name), quant)


def comes_rounded(name: str, half: int) -> bool:
    """Return whether a name stands for a .gguf file with rounded weights. Raises ModelError."""
    name = PAIRS[name][half] if name in PAIRS else name
    path = Path(name).expanduser()
    if path.suffix != ".gguf" or not path.is_file():
        return name in PUBLISHED  # all of 4 bits
    from shared.model.checkpoints.gguf_folder import is_rounded

    return is_rounded(path)


def _place(name: str, kind: str, content: str = "") -> Path:
    """Return where to make a model: each format has its own place, and so has each content, whatever its name."""
    if not content:
        return cache("models") / f"{name}-v{FORMATS[kind]}"
    of_content = f"{content[:16]}-{kind}-v{FORMATS[kind]}"
    made = sorted(cache("models").glob(f"[!.]*-{of_content}"))  # perhaps by another name
    return made[0] if made else cache("models") / f"{name}-{of_content}"


def _toy() -> Path:
    def make(folder: Path) -> None:
        from shared.model.checkpoints.toy_pair import make_toy_pair

        make_toy_pair(folder)

    return _made_once(_place("toy", "toy"), make)


def _of_file(gguf: Path, *, quant: Quant) -> Path:
    if not gguf.is_file():
        raise ModelError(f"{gguf}: no such file")
    try:
        content = file_hash(gguf)
    except OSError as error:
        raise ModelError(f"{gguf}: cannot be read: {error.strerror}") from error
    place = _place(gguf.stem, _KINDS[quant], content)
    return _made_once(place, partial(_convert, gguf, quant=quant))


def _of_published(name: str, *, quant: Quant) -> Path:
    gguf = cache("models") / f"{name}.gguf"

    def make(folder: Path) -> None:
        with _lock(gguf):
            if not gguf.exists():
                download_gguf(name, gguf)
        _convert(gguf, folder, quant=quant)

    kind = _KINDS[quant]
    return _made_once(_place(name if quant == "none" else f"{name}-{kind}", kind), make)


def _convert(gguf: Path, folder: Path, *, quant: Quant = "none") -> None:
    from shared.model.checkpoints.gguf_folder import convert_gguf

    convert_gguf(gguf, folder, quant=quant)


def _of_hub(name: str) -> Path:
    known = ", ".join([TOY, *PAIRS, *PUBLISHED])
    problem = f"{name}: no folder, no .gguf file, none of {known}, and as the id of a hub repository"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except HFValidationError as error:
        raise ModelError(f"{problem} malformed") from error
    except (OSError, ValueError, RuntimeError) as error:  # httpx's and the hub's own errors derive from these
        reason = " ".join(str(error).split())
        raise ModelError(f"{problem} not to be had: {reason}") from error
    if not (folder / "config.json").is_file():
        raise ModelError(f"{problem} no model: it has no config.json")
    return folder


def int4_folder(model: Path) -> Path:
    """Return the folder of this model's graph with 4-bit weights, made if need be. Raises ModelError."""

    def make(folder: Path) -> None:
        from shared.model.checkpoints.onnx_folder import convert_onnx

        convert_onnx(model, folder)

    return _made_once(_place(model.name, "onnx", weights_hash(model)), make)


def int8_folder(model: Path) -> Path:
    """Return the folder of this model with weights of 8 bits, made if need be. Raises ModelError."""
    if own_quant(model) == "int8":
        return model

    def make(folder: Path) -> None:
        from shared.model.checkpoints.int8_folder import convert_int8

        convert_int8(model, folder)

    return _made_once(_place(model.name, "int8", weights_hash(model)), make)


def own_quant(folder: Path) -> Quant:
    """Return what the folder's weights are rounded to, as we write them: int8, gguf or none."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    ours: dict[str, Quant] = {INT8: "int8", K_QUANT: "gguf"}
    return ours.get((config.get("quantization_config") or {}).get("quant_method", ""), "none")


def _in_form(folder: Path, quant: Quant) -> Path:
    if quant == "gguf" and own_quant(folder) != "gguf":
        raise ModelError(f"quant gguf: {folder} is no .gguf file")
    if quant == "int8" and own_quant(folder) == "gguf":
        raise ModelError(f"quant int8: the weights of {folder} are rounded already, as their .gguf file has them")
    return int8_folder(folder) if quant == "int8" else folder


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder, which appears only when `make` has filled it; its time is that of its last use."""
    if not folder.is_dir():
        with _lock(folder):
            if not folder.is_dir():
                _make(folder, make)
    with suppress(OSError):  # a cache that is read only
        os.utime(folder)
    return folder


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed
    unfinished.mkdir()
    try:
        make(unfinished)
        readable = unfinished.stat().st_mode & 0o666  # by whom the umask says; some writers let nobody else read
        for path in unfinished.rglob("*"):
            if path.is_file():
                path.chmod(readable)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main() -> None:
    """Print the folders of a pair, the target's first, once they are there."""
    flags = argparse.ArgumentParser(prog="python -m shared.model.checkpoints.pairs", description=main.__doc__)
    flags.add_argument("pair", nargs="?", default=TOY, help=f"{TOY} (default), {', '.join(PAIRS)}")
    flags.add_argument("--target", help="a folder, .gguf file or hub id, instead of the pair's target")
    flags.add_argument("--draft", help="likewise for the draft")
    args = flags.parse_args()
    try:
        for name, half in ((args.target, TARGET), (args.draft, DRAFT)):
            print(resolve_half(name or args.pair, half))  # noqa: T201 - this is its output
    except ModelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
