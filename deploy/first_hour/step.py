"""A step of the hour: a command with a time limit, and a file with what came of it."""

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self

import psutil

from benchmarks.machine import ROOT

SAID = 4000  # characters of an output that a result keeps: its beginning and its end


@dataclass(frozen=True)
class Result:
    """What came of a step."""

    name: str
    held: bool
    seconds: float
    command: str
    said: str
    """What it printed, or why it did not run."""
    document: Any = None
    """What it printed, if that was JSON."""

    @classmethod
    def load(cls, folder: Path, name: str) -> Self | None:
        """Return what the folder has of this step, if it came to an end."""
        path = folder / f"{name}.json"
        return cls(**json.loads(path.read_text("utf-8"))) if path.exists() else None

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write(folder / f"{self.name}.json", json.dumps(asdict(self), indent=1))


@dataclass(frozen=True)
class Step:
    """A command. It holds if it ends in time with code 0."""

    name: str
    title: str
    command: Sequence[str]
    seconds: float
    """How long it may take."""
    served: bool = False
    """Whether the services must run."""

    def run(self, folder: Path, env: Mapping[str, str]) -> Result:
        """Run it; NAME.out and NAME.err get what it prints."""
        out, err = folder / f"{self.name}.out", folder / f"{self.name}.err"
        started, problem = monotonic(), ""
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(self.command, cwd=ROOT, env=env, stdout=stdout, stderr=stderr)  # noqa: S603 - our own
            try:
                process.wait(self.seconds)
            except subprocess.TimeoutExpired:
                problem = f"no end after {self.seconds / 60:g} minutes"
                end_all(process.pid)
                process.wait()
        printed, complaints = (path.read_text("utf-8", "replace").strip() for path in (out, err))
        document = None
        with suppress(json.JSONDecodeError):
            document = json.loads(printed) if printed.startswith("{") else None
        said = [] if document else [_ends(printed)]
        if process.returncode:
            said = [problem or f"exit code {process.returncode}", *said, _ends(complaints)]
        return self.result("\n".join(said), document, held=not process.returncode, seconds=monotonic() - started)

    def result(self, said: str, document: Any = None, *, held: bool = False, seconds: float = 0) -> Result:
        """Return a result of this step."""
        return Result(self.name, held, round(seconds, 1), shlex.join(self.command), said.strip(), document)


def _ends(text: str) -> str:
    return text if len(text) <= SAID else f"{text[: SAID // 2]}\n...\n{text[-SAID // 2 :]}"


def end_all(pid: int) -> None:
    """End a process and all that it started, and all that those did: torchrun's ranks are in groups of their own."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                each.kill()


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    begun = path.with_name(f"{path.name}.begun")
    begun.write_text(text, "utf-8")
    begun.replace(path)
