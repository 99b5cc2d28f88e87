"""Other engines on the same prompts in the same run: transformers, and any server of OpenAI's API."""

import asyncio
import json
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import httpx

from benchmarks import prompts
from benchmarks.client import TIMEOUT, Ask, Client, models
from benchmarks.comparison import Comparison
from benchmarks.machine import ROOT
from benchmarks.reply import Reply
from benchmarks.section import Section, Value
from benchmarks.single import BOTH
from benchmarks.spread import Spread
from scripts.stack import folders

PLAIN_PEER, ASSISTED_PEER, SERVER = "transformers", "transformers, assisted", "server"


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--repeats", type=int, default=1, help="how often each prompt is asked in each way")
    flags.add_argument(
        "--transformers", action=BooleanOptionalAction, default=True, help="generate, plain and assisted"
    )
    flags.add_argument("--url", help="of a server of OpenAI's API, without /v1: vLLM, llama-server")
    flags.add_argument("--model", help="its model; the first that it lists if not given")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("Peers")
    asked = prompts.load(args.prompts, args.limit)
    async with AsyncExitStack() as running:
        variants = {name: client.asking(fields) for name, fields in BOTH.items()}
        if args.transformers:
            variants |= await running.enter_async_context(_transformers(args))
        if args.url:
            http = await running.enter_async_context(httpx.AsyncClient(base_url=args.url, timeout=TIMEOUT))
            other = replace(client, http=http, model=args.model or (await models(http))[0])
            variants[SERVER] = other.asking({})
        comparison = await Comparison.run("peers", asked, variants, args.repeats)
    section.problems += comparison.failures()
    section.problems += [f"{prompt_id}: our own texts differ" for prompt_id in comparison.unequal(*BOTH)]
    kinds = list(dict.fromkeys(prompt.kind for prompt in asked))
    section.table("Tokens/s, prefill included", [_kind_row(comparison, kind) for kind in kinds])
    pairs = [(name, peer) for peer in variants if peer not in BOTH for name in BOTH]
    section.table("Ours over theirs, geometric means", [_ratio_row(comparison, *pair) for pair in pairs])
    section.notes.append(
        f"{len(asked)} prompts, each asked {args.repeats} times of each, in turns, {args.max_tokens} tokens at most, "
        f"transformers greedy, in {args.dtype}, with {_assistant_k(args)} draft tokens. Between two of our requests "
        f"with one prompt came {comparison.fewest_between(*BOTH)} others or more, "
        f"and {args.num_slots} slots keep a prompt each." + (f" Server: {args.url}, {other.model}." if args.url else "")
    )
    return section


def _assistant_k(args: Namespace) -> int:
    """Return how many tokens transformers' assistant drafts: our k if it is a number, otherwise 4."""
    return 4 if args.k == "auto" else int(args.k)


@asynccontextmanager
async def _transformers(args: Namespace) -> AsyncIterator[Mapping[str, Ask]]:
    """Run `generate` in a process of its own for the length of the block."""
    target, draft = folders(args)
    models_given = [str(folder) for folder in (target, draft) if folder]
    command = [sys.executable, "-m", "benchmarks.transformers_peer", *models_given]
    command += [f"--dtype={args.dtype}", f"--k={_assistant_k(args)}"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe, limit=2**20)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process without pipes")
    writer, reader = process.stdin, process.stdout

    def ask(*, assisted: bool) -> Ask:
        async def one(text: str) -> Reply:
            asked = {"prompt": text, "assisted": assisted, "max_tokens": args.max_tokens}
            if reader.at_eof():
                return Reply(error="transformers' process has ended")
            try:
                writer.write(f"{json.dumps(asked)}\n".encode())
                await writer.drain()
                answer = json.loads(await reader.readline())
            except (OSError, json.JSONDecodeError) as error:
                return Reply(error=f"transformers' process has ended: {error}")
            return Reply(text=answer["text"], completion_tokens=answer["tokens"], seconds=answer["seconds"])

        return one

    try:
        await reader.readline()  # it is ready or has ended; if it has ended, the first question finds out
        yield {PLAIN_PEER: ask(assisted=False)} | ({ASSISTED_PEER: ask(assisted=True)} if draft else {})
    finally:
        writer.close()
        await process.wait()


def _kind_row(comparison: Comparison, kind: str) -> Mapping[str, Value]:
    speeds = {
        name: Spread.of([reply.tokens_per_second for reply in comparison.of(name, (kind,))])
        for name in comparison.variants
    }
    return {"kind": kind, **speeds}


def _ratio_row(comparison: Comparison, name: str, peer: str) -> Mapping[str, Value]:
    return {
        "ours": name,
        "theirs": peer,
        "code, edit, json, structured": comparison.mean_ratio(name, peer, prompts.STRUCTURED),
        "open": comparison.mean_ratio(name, peer, (prompts.OPEN,)),
        "all": comparison.mean_ratio(name, peer),
        "texts equal": f"{comparison.num_equal(name, peer)} of {len(comparison.prompts)}",
    }
