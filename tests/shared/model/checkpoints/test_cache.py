"""What is kept of models: known by content, readable by all, listed and cleaned."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from shared.errors import ModelError
from shared.model.checkpoints.cache import clean, entries
from shared.model.checkpoints.pairs import int4_folder, resolve_model

ROOT = Path(__file__).parent.parent.parent.parent.parent


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return what is converted in this test, into a cache of its own, by stand-ins for both converters."""
    sources: list[Path] = []

    def convert(source: Path, folder: Path) -> None:
        sources.append(source)
        (folder / "model.safetensors").write_bytes(bytes(1000))
        (folder / "model.safetensors").chmod(0o600)

    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shared.model.checkpoints.gguf_folder.convert_gguf", convert)
    monkeypatch.setattr("shared.model.checkpoints.onnx_folder.convert_onnx", convert)
    return sources


@pytest.fixture
def umask() -> Iterator[None]:
    """Let the group write and nobody else read."""
    before = os.umask(0o007)
    yield
    os.umask(before)


def test_a_file_is_known_by_its_content(tmp_path: Path, made: list[Path]) -> None:
    """Touched or moved it is not converted again; with another byte in its weights it is, header and size as before."""
    first, second = tmp_path / "one.gguf", tmp_path / "folder" / "two.gguf"
    first.write_bytes(b"GGUF" + bytes(5000))
    second.parent.mkdir()
    folder = resolve_model(str(first))
    os.utime(first, (1, 1))
    assert resolve_model(str(first)) == folder
    first.rename(second)
    assert resolve_model(str(second)) == folder
    assert len(made) == 1
    first.write_bytes(b"GGUF" + bytes(4999) + b"1")
    assert resolve_model(str(first)) != folder
    assert len(made) == 2


def test_a_graph_is_known_by_its_models_content(tmp_path: Path, made: list[Path]) -> None:
    """A copied folder has the graph of the first; one with other weights has its own."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    folder = int4_folder(model)
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "README.md").write_text("says nothing of weights")
    assert int4_folder(copy) == folder
    (copy / "model.safetensors").write_bytes(b"others!")
    assert int4_folder(copy) != folder
    assert made == [model, copy]


@pytest.mark.usefixtures("made", "umask")
def test_what_is_made_has_the_umasks_mode(tmp_path: Path) -> None:
    """Whatever mode its writer gave it."""
    (tmp_path / "one.gguf").write_bytes(b"GGUF")
    folder = resolve_model(str(tmp_path / "one.gguf"))
    assert oct((folder / "model.safetensors").stat().st_mode & 0o777) == "0o660"


def test_list_and_clean(tmp_path: Path, made: list[Path]) -> None:
    """Entries have name, size and last use; what is named is removed, and what is being made is not."""
    for name in ("large", "small"):
        (tmp_path / f"{name}.gguf").write_text(name)
    large, small = (resolve_model(str(tmp_path / f"{name}.gguf")) for name in ("large", "small"))
    (large / "more.bin").write_bytes(bytes(500))
    os.utime(large, (1, 1))
    os.utime(small, (1, 1))
    resolve_model(str(tmp_path / "small.gguf"))
    unfinished = small.with_name(".other-v1.unfinished")
    unfinished.mkdir()
    listed = {entry.path.name: entry for entry in entries()}
    assert listed.keys() == {large.name, small.name, unfinished.name, "weights"}
    assert [listed[folder.name].size for folder in (large, small)] == [1500, 1000]
    assert listed[large.name].used.timestamp() == 1
    assert abs(listed[small.name].used.timestamp() - time.time()) < 100
    with pytest.raises(ModelError, match="no-such: the cache holds nothing of this name"):
        clean(["large*", "no-such"])
    assert large.is_dir()
    assert [entry.path for entry in clean(["large*"])] == [large]
    with FileLock(small.with_name(".other-v1.lock")):
        assert {entry.path.name for entry in clean(["*"])} == {small.name, "weights"}
    assert [entry.path for entry in entries()] == [unfinished]
    clean([unfinished.name])
    assert entries() == []
    assert resolve_model(str(tmp_path / "large.gguf")) == large
    assert len(made) == 3


def test_the_command(tmp_path: Path) -> None:
    """It lists what is there with the sum, cleans, and ends with a sentence for a name that is not there."""
    (tmp_path / "models" / "model-v1").mkdir(parents=True)
    (tmp_path / "models" / "model-v1" / "model.safetensors").write_bytes(bytes(2_500_000))
    said = []
    for arguments in (["list"], ["clean", "model-v1"], ["clean", "model-v1"]):
        command = [sys.executable, "-m", "shared.model.checkpoints.cache", *arguments]
        environment = os.environ | {"OUTRIDER_CACHE": str(tmp_path)}
        said.append(subprocess.run(command, cwd=ROOT, env=environment, text=True, check=False, capture_output=True))
    assert [done.returncode for done in said] == [0, 0, 1]
    assert "model-v1" in said[0].stdout
    assert said[0].stdout.count("2.5 MB") == 2
    assert said[1].stdout == "removed model-v1, 2.5 MB\n"
    assert said[2].stderr == "model-v1: the cache holds nothing of this name\n"
