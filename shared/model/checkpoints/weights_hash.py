"""Tells whether two folders, or two files, hold the same model."""

import hashlib
import json
from pathlib import Path
from typing import Any

from shared.model.kept import kept

NO_ARITHMETIC = {"_commit_hash", "_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""Keys of config.json that no logit depends on; a setting chooses the dtype."""


def weights_hash(folder: Path) -> str:
    """Return the SHA-256, in hex, of a model's weights and of the parts of its config.json that affect arithmetic.

    If the cache is writable, weights are hashed again only when their sizes or times change. Raises OSError.
    """
    config = _arithmetic(json.loads((folder / "config.json").read_text()))
    return _digest(_files_hash(folder), json.dumps(config, sort_keys=True))


def file_hash(file: Path) -> str:
    """Return the SHA-256, in hex, of a file's content, kept for as long as its path, size and time stay.

    Raises OSError.
    """
    stat = file.stat()

    def find() -> str:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    return kept("weights", f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}", str, find) or find()


def _files_hash(folder: Path) -> str:
    """Return a hash of the names and contents of the files that hold weights."""
    files = sorted(file for file in folder.iterdir() if file.suffix in {".safetensors", ".bin"})
    return _digest(*(f"{file.name} {file_hash(file)}" for file in files))


def _arithmetic(config: Any) -> Any:
    """Return the configuration, nested ones included, without the keys that change no logit."""
    if not isinstance(config, dict):
        return config
    return {key: _arithmetic(value) for key, value in config.items() if key not in NO_ARITHMETIC}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
