"""Ranks that are forked from a process with all imports done: in a second, where torchrun takes many."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from mix import trial_settings
from services import FORKS, ROOT

from shared.model.devices.static import graphs
from shared.model.distributed.leader import follow, lead
from shared.model.loading.open_runner import open_runner
from shared.model.runner import Runner

Job = Callable[[Runner], Any]


def run_ranks(
    num: int, folder: Path, job: Job | None, told: Job | None = None, **settings: object
) -> tuple[Any, list[Any]]:
    """Open the folder on so many ranks; return what the job on rank 0's runner returns, and what each rank tells.

    Both functions are of modules. `settings` are those of `trial_settings`; as `compile_backend`, a function is called
    in each rank to make one, and "eager" traces nothing, which saves seconds.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # as torchrun has one
    shared = {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(num)}
    shared |= {"LOCAL_WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    processes, ends = [], []
    for rank in map(str, range(num)):
        ours, theirs = FORKS.Pipe()
        variables = shared | {"RANK": rank, "LOCAL_RANK": rank}
        process = FORKS.Process(target=_rank, args=(variables, folder, settings, (job, told), theirs))
        process.start()
        theirs.close()
        processes.append(process)
        ends.append(ours)
    try:
        answers = []
        for number, end in enumerate(ends):
            if not end.poll(90):
                pytest.fail(f"rank {number} of {num} says nothing")
            answers.append(end.recv())
        return ends[0].recv() if ends[0].poll(90) else pytest.fail("rank 0 does not finish"), answers
    except EOFError:
        return pytest.fail(f"a rank ended: exit codes {[process.exitcode for process in processes]}")
    finally:
        for process in processes:
            process.kill()
            process.join()


def _rank(
    variables: dict[str, str], folder: Path, settings: dict[str, Any], jobs: Sequence[Job | None], end: Any
) -> None:
    os.chdir(ROOT)
    os.environ |= variables
    if callable(settings["compile_backend"]):
        settings["compile_backend"] = settings["compile_backend"]()
    if settings["compile_backend"] == "eager":
        graphs.compiled = lambda graph, backend: graph  # noqa: ARG005 - as it is called
    job, told = jobs
    runner = open_runner(folder, trial_settings(folder, **settings))
    end.send(told(runner) if told else None)
    if int(variables["RANK"]):
        follow(runner)
    end.send(job(lead(runner)) if job else None)
    end.recv()  # until this process is killed: a rank that ends would be a rank that is lost
