"""The ranks: the processes that hold one model together, started by torchrun on one machine. Rank 0 serves."""

import os
import secrets
from collections.abc import Sequence
from functools import cache
from multiprocessing.connection import Client, Connection, Listener, wait
from threading import Thread
from typing import NoReturn

import structlog
from torch.distributed import is_torchelastic_launched
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from shared.errors import ModelError

log = structlog.get_logger()

LOST = "a rank is lost"


def num_ranks() -> int:
    """Return how many processes hold the model: 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if is_torchelastic_launched() else 1


def rank() -> int:
    """Return this process's rank."""
    return int(os.environ["RANK"]) if is_torchelastic_launched() else 0


@cache
def join() -> Sequence[Connection]:
    """Connect to the other ranks: return rank 0's connections to all others, or another rank's one to rank 0.

    From then on, rank 0 ends at once, with exit code 1, when another rank or torchrun is gone. Raises ModelError.
    """
    here = os.environ["LOCAL_WORLD_SIZE"]
    if int(here) != num_ranks():
        raise ModelError(f"{num_ranks()} ranks, {here} of them on this machine: it must have all")
    store = PrefixStore("outrider", next(rendezvous("env://"))[0])
    if rank():
        return [Client(store.get("address").decode(), authkey=store.get("key"))]
    key = secrets.token_hex()
    with Listener(family="AF_UNIX", backlog=num_ranks(), authkey=key.encode()) as listener:
        store.set("key", key)
        store.set("address", str(listener.address))
        connections = [listener.accept() for _ in range(1, num_ranks())]
    Thread(target=_end_with, args=(connections,), daemon=True).start()
    return connections


def _end_with(connections: Sequence[Connection]) -> None:
    """End when one of the connections closes; the other side never sends anything."""
    torchrun = os.getppid()
    while not wait(connections, timeout=1) and os.getppid() == torchrun:
        pass
    end(LOST)


def end(reason: str) -> NoReturn:
    """End this process at once: one of its threads may be waiting for something that will never come."""
    log.error(reason, rank=rank())
    os._exit(1)
