"""A model that cannot be had: a program ends with one sentence and the status 1."""

from pathlib import Path

import pytest
from services import FORKS, run_module

SENTENCES = {
    "nothing.gguf": "no such file",
    "cut.gguf": "not a whole GGUF file",
    "folder": "this folder is no model, it has no config.json",
}


@pytest.mark.parametrize(
    ("module", "flag", "name"),
    [
        ("target_service", "--model", "nothing.gguf"),
        ("target_service", "--model", "cut.gguf"),
        ("target_service", "--model", "folder"),
        ("draft_service", "--model", "cut.gguf"),
        ("scripts.demo", "--target", "nothing.gguf"),
        ("scripts.demo", "--draft", "folder"),
        ("shared.model.checkpoints.pairs", "--target", "cut.gguf"),
    ],
)
def test_one_sentence_and_no_traceback(tmp_path: Path, module: str, flag: str, name: str) -> None:
    """For no file, a damaged one and a folder without a model."""
    path, log = tmp_path / name, tmp_path / "log"
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3\0")
    (tmp_path / "folder").mkdir()
    flags = [f"{flag}={path}", *(["--pair=toy"] if flag == "--draft" else [])]
    process = FORKS.Process(target=run_module, args=(log, None, module, *flags))
    process.start()
    process.join(60)
    assert process.exitcode == 1
    *others, last = log.read_text().splitlines()
    assert last.removeprefix("setting model: ").startswith(f"{path}: {SENTENCES[name]}")
    assert not [line for line in others if "runpy" not in line]  # Python's own, since the module is already imported
