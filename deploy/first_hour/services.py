"""The three services, while steps need them."""

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.first_hour.plan import Plan
from deploy.first_hour.processes import end_all, start
from deploy.first_hour.steps import serve
from scripts.stack import answers, free_port


class Services:
    """Starts them when they are first needed, and again if they have ended; stops them at the block's end."""

    def __init__(self, plan: Plan, folder: Path, env: Mapping[str, str]) -> None:
        """Start nothing yet. services.log, in the folder, gets what they say."""
        self._ports = free_port(), free_port(), free_port()
        self._command, self._seconds = serve(plan, self._ports), plan.minutes["start"] * 60
        self._log, self._mark, self._env = folder / "services.log", folder / "services", env
        self._process: subprocess.Popen[bytes] | None = None
        self._problem = ""
        self.url = f"http://127.0.0.1:{self._ports[0]}"

    @property
    def run(self) -> bool:
        """Whether all three do: without its draft, a gateway would go on as if nothing were to be proved."""
        if not self._process or self._process.poll() is not None:
            return False
        with suppress(psutil.NoSuchProcess):
            states = [child.status() for child in psutil.Process(self._process.pid).children()]
            return len(states) == len(self._ports) and psutil.STATUS_ZOMBIE not in states
        return False

    def problem(self) -> str:
        """Have them run; return why they do not. What did not start once is not tried again."""
        if self._problem or self.run:
            return self._problem
        end_all(self._mark)
        deadline = time.monotonic() + self._seconds
        with self._log.open("ab") as log:
            self._process = start(self._command, self._mark, self._env, log, log)
        while not answers(f"{self.url}/ready"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._problem = f"the services do not start: the end of {self._log.name} says\n{self._end_of_log()}"
                end_all(self._mark)
                break
            time.sleep(0.3)
        return self._problem

    def _end_of_log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-800:]

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop them."""
        if kind:
            end_all(self._mark)
        elif self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                end_all(self._mark)
