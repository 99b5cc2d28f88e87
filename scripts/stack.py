"""Starts a draft service, a target service and a gateway, and stops them again."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from gateway.text.tokenizer import ChatTokenizer
from shared.errors import ModelError
from shared.health_check import serves
from shared.model.checkpoints.pairs import DRAFT, resolve_half, resolve_model
from shared.model.huge_pages import HUGE, VARIABLE
from shared.model.loading.target_folder import target_folder

ROOT = Path(__file__).parent.parent
console = Console()
status = Console(stderr=True).status


def parser(description: str | None, *, add_help: bool = True) -> ArgumentParser:
    """Return a parser of the flags that choose the models."""
    flags = ArgumentParser(description=description, add_help=add_help)
    flags.add_argument("--pair", default="qwen-coder", help="toy or qwen-coder")
    flags.add_argument("--target", default="", help="a folder, .gguf file or hub id, in the place of the pair's")
    flags.add_argument("--draft", default="", help="likewise; none, or only a target, looks draft tokens up")
    flags.add_argument(
        "--chat-template", default="", help="a file with the template of chats; the target's own if empty"
    )
    flags.add_argument(
        "--target-quant",
        default="",
        help="the target's weights: none, int8, gguf, auto; empty: auto for a rounded .gguf",
    )
    flags.add_argument("--draft-quant", default="auto", help="the draft's weights: none, auto, int8 or int4")
    flags.add_argument("--k", default="auto", help="draft tokens of a round; auto is as many as pay")
    flags.add_argument("--dtype", default="bfloat16", help="bfloat16 or float32")
    flags.add_argument(
        "--num-slots", default="", help="sessions at once; as many as fit the memory, 8 at most, if empty"
    )
    flags.add_argument("--max-length", default="", help="of a sequence, in tokens; the models' own, as far as it fits")
    flags.add_argument("--device", default="cpu", help="cpu, neuron, or simulated: in the time of the profiles")
    flags.add_argument("--target-profile", default="trn2-qwen3-32b", help="of shared/model/profiles, or a .toml file")
    flags.add_argument("--draft-profile", default="trn2-qwen3-1.7b", help="likewise")
    flags.add_argument("--target-ranks", type=int, default=1, help="processes that hold the target together")
    flags.add_argument("--target-cores", default="", help="the target's NeuronCores, such as 0-3")
    flags.add_argument("--draft-cores", default="", help="the draft's, others than the target's")
    flags.add_argument("--network-delay-ms", type=float, default=0, help="of each message, to the services and back")
    return flags


def folders(args: Namespace) -> tuple[Path, Path | None]:
    """Return the folders of the target and the draft that the flags choose; None for no draft model.

    A target that is given alone has none. Raises ModelError, as for a draft that has not the target's tokenizer.
    """
    target = target_folder(args.target or args.pair, args.target_quant, args.device)
    if not (args.target or args.draft):
        return target, resolve_half(args.pair, DRAFT)
    if args.draft in {"", "none"}:
        return target, None
    draft = resolve_model(args.draft)
    if ChatTokenizer.load(str(draft)).fingerprint != ChatTokenizer.load(str(target)).fingerprint:
        names = f"{args.draft}: not a draft for {args.target or args.pair}"
        raise ModelError(f"{names}: their tokenizers differ; without DRAFT= draft tokens are looked up in the text")
    return target, draft


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def stack(args: Namespace, port: int, draft_port: int, target_port: int, log_level: str) -> Iterator[str]:
    """Run the three services for the length of the block; yields the gateway's URL.

    Exits with a sentence if a port is taken or a model cannot be had.
    """
    for number in (port, draft_port, target_port):
        _check_free(number)
    try:
        target, draft = folders(args)
    except ModelError as error:
        sys.exit(str(error))
    if args.target and not args.draft:
        Console(stderr=True).print("no draft model: draft tokens are looked up in the text; DRAFT= would add a model")
    template = args.chat_template and Path(args.chat_template).expanduser().resolve()
    if template and not template.is_file():
        sys.exit(f"{args.chat_template}: no such file")
    common = {"dtype": args.dtype, "log_level": log_level}
    common |= {"device": args.device, "network_delay_ms": args.network_delay_ms}
    common |= {name: value for name in ("num_slots", "max_length") if (value := getattr(args, name))}
    addresses = {"target": f"127.0.0.1:{target_port}", "draft": f"127.0.0.1:{draft_port}"}
    url, ranks = f"http://127.0.0.1:{port}", {"target": args.target_ranks, "draft": 1}
    with ExitStack() as running:
        own = {
            "target": {"model": target, "profile": args.target_profile, "cores": args.target_cores},
            "draft": {
                "model": draft or "none",
                "profile": args.draft_profile,
                "cores": args.draft_cores,
                "quant": args.draft_quant,
            },
        }
        services = {
            name: running.enter_context(
                _process(f"{name}_service", ranks[name], address=addresses[name], **common, **settings)
            )
            for name, settings in own.items()
        }
        for name, process in services.items():
            with status(f"loading the {name} model"):
                _wait(process, lambda name=name: serves(addresses[name], 1))  # type: ignore[misc]  # mypy infers no default
        flags = {
            "tokenizer": target,
            "chat_template": template,
            "default_k": args.k,
            "port": port,
            "log_level": log_level,
            **addresses,
        }
        name = args.target or args.pair
        gateway = running.enter_context(_process("gateway", model_name=Path(name).name, **flags))
        with status("starting the gateway"):
            _wait(gateway, lambda: answers(f"{url}/health"))
        yield url


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections are no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"port {port} is taken")


@contextmanager
def _process(module: str, ranks: int = 1, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    env = {VARIABLE: HUGE} if settings.get("device") == "cpu" else {}  # for which the services would start anew
    process = subprocess.Popen([sys.executable, *launch, "-m", module, *flags], cwd=ROOT, env=env | os.environ)  # noqa: S603 - our own
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    while not ready():
        if process.poll() is not None:
            sys.exit(f"a service ended with code {process.returncode}")
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Return whether a service answers there with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
