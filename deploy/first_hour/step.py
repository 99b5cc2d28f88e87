"""A step of the hour: a command with a time limit, and a file with what came of it."""

import json
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self

from deploy.first_hour.plan import Plan
from deploy.first_hour.processes import end_all, start

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
    plan: Any = None
    """What was tried, for JSON: the plan as it was arranged then."""
    document: Any = None
    """What it printed, if that was JSON."""

    @classmethod
    def load(cls, folder: Path, name: str) -> Self | None:
        """Return what the folder has of this step, if it came to an end."""
        path = folder / f"{name}.json"
        return cls(**json.loads(path.read_text("utf-8"))) if path.exists() else None

    @staticmethod
    def forget(folder: Path, name: str) -> None:
        """Let the step be run again."""
        (folder / f"{name}.json").unlink()

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write(folder / f"{self.name}.json", json.dumps(asdict(self), indent=1))


@dataclass(frozen=True)
class Step:
    """A command. It holds if it ends in time with code 0."""

    plan: Plan
    """What it tries, as arranged so far: a result of another arrangement is none."""
    name: str
    title: str
    command: Sequence[str]
    seconds: float
    """How long it may take."""

    def result(self, said: str, document: Any = None, *, held: bool = False, seconds: float = 0) -> Result:
        """Return a result of this step."""
        command = shlex.join(self.command)
        return Result(self.name, held, round(seconds, 1), command, said.strip(), self.plan.document(), document)


class Run:
    """A step from its start to its result."""

    def __init__(self, step: Step, folder: Path, env: Mapping[str, str]) -> None:
        """Start it; NAME.out and NAME.err, in the folder, get what it prints."""
        self.step, self._mark = step, folder / step.name
        self._files = [folder / f"{step.name}.{kind}" for kind in ("out", "err")]
        self._started = monotonic()
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._process = start(step.command, self._mark, env, out, err)

    def result(self) -> Result | None:
        """Return what came of it, or None while it runs. It is ended when its time is over."""
        problem, seconds = "", monotonic() - self._started
        if self._process.poll() is None:
            if seconds < self.step.seconds:
                return None
            problem = f"no end after {self.step.seconds / 60:g} minutes"
        end_all(self._mark)
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:  # what a driver holds
            code = -signal.SIGKILL
        printed, complaints = (path.read_text("utf-8", "replace").strip() for path in self._files)
        document = None
        with suppress(json.JSONDecodeError):
            document = json.loads(printed) if printed.startswith("{") else None
        said = [] if document else [_ends(printed)]
        if code:
            said = [problem or f"exit code {code}", *said, _ends(complaints)]
        return self.step.result("\n".join(said), document, held=not code, seconds=seconds)


def _ends(text: str) -> str:
    return text if len(text) <= SAID else f"{text[: SAID // 2]}\n...\n{text[-SAID // 2 :]}"


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    begun = path.with_name(f"{path.name}.begun")
    begun.write_text(text, "utf-8")
    begun.replace(path)
