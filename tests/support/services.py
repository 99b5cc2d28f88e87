"""The toy pair, and the services as separate processes, each on its own socket."""

import asyncio
import os
import runpy
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from own_process import read_events

from gateway.clients.deadlines import Deadlines
from gateway.clients.draft.client import DraftClient
from gateway.clients.target.client import TargetClient
from gateway.rounds.decoder import Decoder
from scripts.stack import free_port
from shared.model.checkpoints.pairs import resolve_pair
from shared.model.huge_pages import VARIABLE

ROOT = Path(__file__).parent.parent.parent
HALVES = "target", "draft"
CONNECTING_SECONDS = 1.5  # for a channel to all of several replicas: it does not report when it has them all


# Imports that take a service seconds are done once, in a process that the services are forked from. It must have only
# one thread, since a fork copies no other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault(VARIABLE, "")  # a fork cannot be started anew
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["shared.model.commands.run_command", "shared.rpc", "prometheus_client"])


@dataclass
class Service:
    """A service that runs in a process of its own."""

    process: ForkServerProcess
    address: str
    log: Path

    def send(self, signal_number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, signal_number)

    def kill(self) -> None:
        """Kill the process, without letting it drain."""
        self.process.kill()
        self.process.join()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process.pid
        return self.process.pid

    def wait(self, seconds: float) -> int | None:
        """Return the code that the process ends with, or None if it does not in time."""
        self.process.join(seconds)
        return self.process.exitcode

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the events with this name in its log."""
        return read_events(self.log, name)


def run_module(log: Path, plant: object, module: str, *arguments: str) -> None:
    """Become `python -m module`, with its standard error in this file, after the plant has made its change."""
    os.chdir(ROOT)
    with log.open("wb") as sink:
        os.dup2(sink.fileno(), 2)
    if callable(plant):
        plant()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextmanager
def service(
    module: str, log: Path, *, ranks: object = 1, plant: object = None, **settings: object
) -> Iterator[Service]:
    """Run `python -m module` with these settings for the duration of the block, which begins when it serves.

    More than one of `ranks` run under torchrun. A plant is called in the process first: a module's function that plants
    a fault there.
    """
    settings = ({} if module == "gateway" else {"address": "127.0.0.1:0"}) | settings
    command = [module, *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())]
    if ranks != 1:
        command = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", *command]
    log.touch()
    process = FORKS.Process(target=run_module, args=(log, plant, *command))
    process.start()
    running = Service(process, "", log)
    try:
        deadline = time.monotonic() + 120
        while not (serving := running.events("serving")):
            if process.exitcode is not None or time.monotonic() > deadline:
                pytest.fail(f"{module} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        running.address = f"127.0.0.1:{serving[0]['port']}"
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.send(signal.SIGCONT)
        running.kill()


@contextmanager
def gateway(log: Path, **settings: object) -> Iterator[str]:
    """Run a gateway of the model `toy` likewise; yields its URL once it answers."""
    port = free_port()
    with service("gateway", log, model_name="toy", port=port, **settings) as running:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=9)) as http:  # pauses double: 0.5 s, 1 s, ...
            http.get(f"{url}/health").raise_for_status()
        yield url
        if (code := running.wait(0)) is not None:
            pytest.fail(f"the gateway ended with code {code}")


@pytest.fixture(scope="session")
def toy() -> tuple[Path, Path]:
    """Return the folders of the toy pair: target, draft."""
    return resolve_pair("toy")


StartService = Callable[..., Service]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartService]:
    """Start services that run to the end of the test session; the same settings share one service."""
    logs = tmp_path_factory.mktemp("logs")
    started: dict[tuple[object, ...], Service] = {}
    with ExitStack() as stack:

        def start_one(module: str, **settings: object) -> Service:
            settings = {"dtype": "bfloat16"} | settings  # the default: naming it must not start another service
            key = (module, *sorted(settings.items(), key=str))
            if key not in started:
                log = logs / f"{module}-{len(started)}.log"
                started[key] = stack.enter_context(service(module, log, **settings))
            return started[key]

        yield start_one


@asynccontextmanager
async def decoder(
    target: str, draft: str | None, deadline_seconds: float = 30, deadlines: Deadlines | None = None
) -> AsyncIterator[Decoder]:
    """Decode with the services at these addresses, once the draft is found."""
    target_client = TargetClient(target, deadlines=deadlines)
    info = await target_client.model_info(30)
    draft_client = DraftClient(draft or "127.0.0.1:1", info)
    watching = asyncio.create_task(draft_client.watch())
    async with asyncio.timeout(30):
        while draft and not draft_client.info:
            await asyncio.sleep(0.02)
    try:
        yield Decoder(target_client, info, draft_client, deadline_seconds)
    finally:
        watching.cancel()
        await draft_client.close()
        await target_client.close()


@pytest_asyncio.fixture(scope="module")
async def toy_decoder(start: StartService, toy: tuple[Path, Path]) -> AsyncIterator[Decoder]:
    """Decode with the toy pair in float32, whose draft is right about half of the time."""
    target, draft = (start(f"{name}_service", model=toy[half], dtype="float32") for half, name in enumerate(HALVES))
    async with decoder(target.address, draft.address) as decode:
        yield decode


def after(count: int, call: Callable[[], object]) -> Callable[[], None]:
    """Return a function that makes the call when it has been called `count` times."""
    left = count

    def one() -> None:
        nonlocal left
        left -= 1
        if not left:
            call()

    return one


@pytest.fixture(scope="session")
def toy_url(start: StartService, toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the toy pair in float32 and k of 4, a process for each of the three services; return the gateway's URL."""
    halves = {name: start(f"{name}_service", model=toy[half], dtype="float32") for half, name in enumerate(HALVES)}
    addresses = {name: running.address for name, running in halves.items()}
    with gateway(tmp_path_factory.mktemp("gateway") / "log", tokenizer=toy[0], default_k=4, **addresses) as url:
        yield url
