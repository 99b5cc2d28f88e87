"""What is kept for the next start is believed only if it is whole, and of the right key."""

import json
import os
from pathlib import Path

import pytest

from shared.errors import ModelError
from shared.model.kept import cache, kept


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Use a cache of one's own."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    return tmp_path


def find() -> dict[str, list[int]]:
    """Return what is found anew."""
    return {"new": [1]}


def test_it_is_found_once(folder: Path) -> None:
    """And again for another key."""
    found = [kept("things", "a", dict[str, list[int]], find)]
    found.append(kept("things", "a", dict[str, list[int]], lambda: pytest.fail("it is kept")))
    assert found == [find()] * 2
    assert kept("things", "b", dict[str, list[int]], dict) == {}
    assert len(list((folder / "things").iterdir())) == 2


@pytest.mark.parametrize(
    "content",
    [
        "", "[1,2]", '"abc"', "{}", '["a"]', '["a", null]', '["a", {"old": "x"}]', '["a", {"old": ["8"]}]',
        '["other", {"old": [1]}]', '["a", {"old": [1]}', '{"key": "a", "found": {"old": [1]}}',
    ],
)  # fmt: skip
def test_what_is_not_whole_is_found_anew(folder: Path, content: str) -> None:
    """Whatever stands in the file, and it is mended."""
    kept("things", "a", dict[str, list[int]], find)
    [file] = (folder / "things").iterdir()
    file.write_text(content)
    assert kept("things", "a", dict[str, list[int]], find) == {"new": [1]}
    assert json.loads(file.read_text()) == ["a", {"new": [1]}]


def test_nothing_is_not_kept(folder: Path) -> None:
    """None is what is found where nothing can be."""
    assert kept("things", "a", str, lambda: None) is None
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="paths of Linux and macOS")
def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is found anew each time; a home that is not there is told."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path / "file"))
    assert kept("things", "a", str, lambda: "found") == "found"
    monkeypatch.setenv("OUTRIDER_CACHE", "~no-such-user/cache")
    with pytest.raises(ModelError, match="OUTRIDER_CACHE ~no-such-user/cache: "):
        cache("things")
