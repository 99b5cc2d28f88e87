"""The hash of a model's weights: equal for equal arithmetic, wherever the files are, and read once."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.model.checkpoints.weights_hash import weights_hash


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a cache of one's own."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(toy: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a copy of the toy target."""
    return Path(shutil.copytree(toy[0], tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the folder's config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, sort_keys=False))


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_where_the_files_are_does_not_matter(toy: tuple[Path, Path], model: Path) -> None:
    """Claim: a copy has the hash of the original, and the draft another one."""
    assert weights_hash(model) == weights_hash(toy[0]) != weights_hash(toy[1])


def test_one_byte(model: Path) -> None:
    """Claim: one byte of the weights changes it, though the file was hashed before; so does a file more."""
    hashes = [weights_hash(model)]
    flip(model / "model.safetensors")
    hashes.append(weights_hash(model))
    (model / "more.bin").write_bytes(b"\0")
    hashes.append(weights_hash(model))
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda config: config.update(transformers_version="4.0.0", _name_or_path="elsewhere"), True),
        (lambda config: config["text_config"].update(_name_or_path="elsewhere"), True),
        (lambda config: config.update(rms_norm_eps=1e-5), False),
        (lambda config: config.update(dict(reversed(list(config.items())))), True),
    ],
    ids=["who wrote it", "who wrote a part", "arithmetic", "order"],
)
def test_config(model: Path, change: Callable[[dict[str, Any]], object], *, same: bool) -> None:
    """Claim: what config.json says of arithmetic changes it, and who wrote the file does not."""
    rewrite(model, lambda config: config.update(text_config={"rms_norm_eps": 1e-6}))
    before = weights_hash(model)
    rewrite(model, change)
    assert (weights_hash(model) == before) == same


def test_gigabytes_are_read_once(model: Path, cache: Path) -> None:
    """Claim: what was hashed is not read again while sizes and times stay; without a cache it is, each time."""
    weights = model / "model.safetensors"
    before, stat = weights_hash(model), weights.stat()
    flip(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert weights_hash(model) == before  # nobody looked
    shutil.rmtree(cache)
    cache.write_text("a file where the folder would be")
    assert weights_hash(model) != before
    flip(weights)
    assert weights_hash(model) == before
