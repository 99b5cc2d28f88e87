"""What is left of the machine's memory, and of a container's."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from shared.model.loading import memory
from shared.model.loading.memory import memory_in_all, memory_left

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Have 16 GiB, of which 10 are available, and no groups."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GIB, available=10 * GIB))
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(shared=GIB)))
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    return tmp_path


def group(place: Path, version: int, limit: int | str, used: int, of_files: int) -> None:
    """Make a group, half of whose pages of files were read long ago."""
    _, limit_file, used_file, names = memory.FILES[version]
    place.mkdir(parents=True, exist_ok=True)
    (place / limit_file).write_text(f"{limit}\n")
    (place / used_file).write_text(f"{used}\n")
    (place / "memory.stat").write_text("anon 5\n" + "".join(f"{name} {of_files // 2}\n" for name in names))


def test_a_machine_without_groups() -> None:
    """Claim: what is available is left, but for the files that this process has mapped."""
    assert (memory_left(), memory_in_all()) == (9 * GIB, 16 * GIB)


@pytest.mark.parametrize(("version", "line", "place"), [(2, "0::", ""), (1, "4:memory:", "memory")])
def test_containers(machine: Path, version: int, line: str, place: str) -> None:
    """Claim: the tightest of the groups around this process counts; pages of files can be given back."""
    root = machine / "groups" / place
    (machine / "own").write_text(f"9:cpu:/x\n{line}/pods/one\n")
    group(root, version, "max", 12 * GIB, 0)
    group(root / "pods", version, 8 * GIB, 5 * GIB, 2 * GIB)
    assert (memory_left(), memory_in_all()) == (4 * GIB, 8 * GIB)
    group(root / "pods/one", version, 6 * GIB, 5 * GIB, 2 * GIB)
    assert (memory_left(), memory_in_all()) == (2 * GIB, 6 * GIB)
    group(root / "pods/one", version, 6 * GIB, 6 * GIB, 0)
    assert memory_left() == 0


def test_within_a_container_its_own_group_is_the_outermost(machine: Path) -> None:
    """Claim: a path that can only be seen from outside is none; the limit stands at the top."""
    (machine / "own").write_text("0::/docker/0123\n")
    group(machine / "groups", 2, 4 * GIB, GIB, 0)
    assert (memory_left(), memory_in_all()) == (2 * GIB, 4 * GIB)
