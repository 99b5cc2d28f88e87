"""What a newcomer meets first: `make`, what it installs, the licence, the workflows."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {name for line in re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE) for name in line.split()}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with what `make` reads, in which nothing is installed yet."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> str:
    """Return what make prints there; fails with what it says if it fails."""
    done = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_lists_what_there_is_and_does_nothing(checkout: Path) -> None:
    """It has a line for each target but the parts of `make check`, and leaves the folder as it is."""
    before = set(checkout.iterdir())
    told = set(re.findall(r"^  make ([a-z-]+) ", make(checkout), re.MULTILINE))
    assert told == {name for name in TARGETS if not name.startswith("check-")}
    assert set(checkout.iterdir()) == before


@pytest.mark.parametrize("target", ["serve", "demo"])
def test_what_serves_installs_no_development_tools(checkout: Path, target: str) -> None:
    """Pytest, mypy and their kind come with the first target that needs them."""
    commands = make(checkout, "--dry-run", target)
    assert "--group demo" in commands
    assert "--group dev" not in commands
    assert "--group dev" in make(checkout, "--dry-run", "check")


def test_every_installation_has_exact_versions(checkout: Path) -> None:
    """No version depends on the day."""
    commands = make(checkout, "--dry-run", "check", "contract")
    installed = [line for line in commands.splitlines() if " install " in line and "--upgrade" not in line]
    assert any("[contract]" in line for line in installed)
    assert all("--constraint constraints.txt" in line for line in installed)


def test_every_image_has_exact_versions() -> None:
    """Nor of what an image has, but for what AWS's brings."""
    installed = re.findall(r"pip .*\binstall\b.*", (ROOT / "Dockerfile").read_text())
    assert len(installed) == 4
    assert all("-c constraints.txt" in command or command.endswith(" torch==2.13.0") for command in installed)


def test_constraints_name_versions_alone() -> None:
    """No URLs, no hashes, and torch without the name of its build."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("page", ["proofs.md", "robustness.md"])
def test_every_proof_is_there(page: str) -> None:
    """A page names no test file, and no test, that does not exist."""
    named = re.findall(r"`([a-z_/]+/test_[a-z_]+\.py)(?:::(\w+))?`", (ROOT / "docs" / page).read_text())
    assert named
    for path, test in named:
        assert f"def {test}" in (ROOT / "tests" / path).read_text()


def test_the_licence_is_the_one_that_is_declared() -> None:
    """Its text is there, as pyproject.toml says."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    text = (ROOT / "LICENSE").read_text()
    assert declared == "Apache-2.0"
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(("line", "breaks"), [("  int32 k = 99;", False), ("  reserved 1;", True)])
def test_the_contract_grows_and_does_not_break(tmp_path: Path, line: str, *, breaks: bool) -> None:
    """A message may get a field; to take one away breaks deployed services."""
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    proto = tmp_path / "proto" / "specdec" / "v1" / "specdec.proto"
    old = re.compile(r"^  repeated int32 prompt_token_ids = 1;$", re.MULTILINE)
    text, count = old.subn(line if breaks else rf"\g<0>\n{line}", proto.read_text(), count=1)
    assert count
    proto.write_text(text)
    command = [str(Path(sys.executable).parent / "buf"), "breaking", "--against", "proto/baseline.binpb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ("prompt_token_ids" in done.stdout, done.returncode != 0) == (breaks, breaks), done


@pytest.mark.skipif(not find_spec("check_jsonschema"), reason="check-jsonschema is not installed")
def test_workflows_conform_to_their_schema(tmp_path: Path) -> None:
    """A planted fault is found."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    assert WORKFLOWS
    subprocess.run([*check, *WORKFLOWS], check=True)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs_on:"))
    assert subprocess.run([*check, wrong], capture_output=True, check=False).returncode


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_by_commit_and_call_targets(path: Path) -> None:
    """A tag could move; and what CI does, everybody can do."""
    text = path.read_text()
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", action) for action in used)
    (job,) = yaml.safe_load(text)["jobs"].values()
    called = " ".join(job["strategy"]["matrix"]["make"]).split()
    assert set(called) <= TARGETS
