"""Many requests at once: throughput and waiting, plain and speculative."""

import asyncio
import random
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks import prompts
from benchmarks.client import Client, user
from benchmarks.flags import numbers
from benchmarks.progress import progress
from benchmarks.reply import Reply
from benchmarks.section import Section, Value
from benchmarks.single import BOTH, acceptance_row
from benchmarks.spread import percentile

ARRIVALS_SEED = 1
Levels = Mapping[tuple[str, str], "Level"]  # by load, and plain or speculative


@dataclass(frozen=True)
class Level:
    """The outcome of one load."""

    replies: Sequence[Reply]
    seconds: float
    """From the first request to the last answer."""

    @property
    def whole(self) -> list[Reply]:
        """The complete answers."""
        return [reply for reply in self.replies if not reply.error]

    @property
    def requests_per_second(self) -> float:
        """Counting answered requests only."""
        return len(self.whole) / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Of all requests together."""
        return sum(reply.completion_tokens for reply in self.whole) / self.seconds


@dataclass(frozen=True)
class Generator:
    """Makes loads of one kind of request."""

    client: Client
    prompts: Sequence[prompts.Prompt]
    fields: Mapping[str, Any]
    most_seconds: float
    """No request is sent later than this after the first."""

    async def closed_loop(self, concurrency: int, each: int) -> Level:
        """Let `concurrency` clients send `each` requests, one after the other."""
        started, replies = perf_counter(), list[Reply]()

        async def one(number: int) -> None:
            for turn in range(each):
                if perf_counter() - started < self.most_seconds:
                    replies.append(await self._ask(number + turn * concurrency))

        await asyncio.gather(*map(one, range(concurrency)))
        return Level(replies, perf_counter() - started)

    async def poisson(self, rate: float, count: int) -> Level:
        """Send `count` requests at random moments, `rate` a second; the moments are the same each time."""
        rng, started, at = random.Random(ARRIVALS_SEED), perf_counter(), 0.0  # noqa: S311 - not a secret
        pending: list[asyncio.Task[Reply]] = []
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                pending.append(tasks.create_task(self._ask(number)))
                at += rng.expovariate(rate)
                if at > self.most_seconds:
                    break
                await asyncio.sleep(max(0.0, started + at - perf_counter()))
        return Level([task.result() for task in pending], perf_counter() - started)

    async def _ask(self, number: int) -> Reply:
        text = self.prompts[number % len(self.prompts)].text
        return await self.client.chat(user(prompts.unseen(text)), self.fields)


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--concurrency", type=numbers, default="1,2,4,8,16,32", help="of the closed loop")
    flags.add_argument("--requests", type=int, default=2, help="that each client of the closed loop sends")
    flags.add_argument("--arrivals", type=int, default=16, help="requests of a Poisson load")
    flags.add_argument("--shares", type=numbers, default="50,80", help="Poisson loads, in percent of plain's capacity")
    flags.add_argument("--seconds", type=float, default=120, help="no load sends requests for longer")
    flags.set_defaults(num_slots=32)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("Load")
    levels = await measure(client, args)
    loads = list(dict.fromkeys(load for load, _ in levels))
    section.table("Throughput", [_throughput_row(levels, load, loads[0]) for load in loads])
    section.table("Waiting", [{"load": load, "": name, **_waiting(level)} for (load, name), level in levels.items()])
    section.problems += failures(levels)
    section.notes.append(
        f"At once: so many clients each send {args.requests} requests one after the other. Poisson: requests come at "
        "random moments, the same for plain and speculative, at shares of the most requests a second that plain "
        "decoding answered before. No prompt is in a cache, but for what the template begins with. TTFT: to the first "
        "piece of text; token: a request's mean time for a token after that; gap: between two pieces, of which a round "
        "sends one. Tokens per second are of all requests together, from the first request to the last answer."
    )
    return section


async def measure(client: Client, args: Namespace) -> Levels:
    """Run every load, plain and speculative in turns, after a warm-up."""
    asked = prompts.load(args.prompts, args.limit)
    generators = {name: Generator(client, asked, fields, args.seconds) for name, fields in BOTH.items()}
    levels: dict[tuple[str, str], Level] = {}
    with progress("load", len(BOTH) * (len(args.concurrency) + len(args.shares))) as advance:
        for fields in BOTH.values():
            await client.chat(user(prompts.WARM_UP), fields)
        # Every slot then holds the common beginning of all chats, as on a server in use, whichever load comes first.
        once = [client.chat(user(prompts.WARM_UP), max_tokens=1) for _ in range(max(args.concurrency))]
        await asyncio.gather(*once)
        for concurrency in args.concurrency:
            for name, generator in generators.items():
                levels[f"{concurrency} at once", name] = await generator.closed_loop(concurrency, args.requests)
                advance()
        capacity = max(level.requests_per_second for (_, name), level in levels.items() if name == "plain")
        for rate in (capacity * share / 100 for share in args.shares if capacity):
            for name, generator in generators.items():
                levels[f"Poisson, {rate:.3g} requests/s", name] = await generator.poisson(rate, args.arrivals)
                advance()
    return levels


def failures(levels: Levels) -> list[str]:
    """Return a line for each request that failed."""
    return [f"{load}, {name}: {r.error}" for (load, name), level in levels.items() for r in level.replies if r.error]


def _throughput_row(levels: Levels, load: str, first: str) -> Mapping[str, Value]:
    plain, speculative = (levels[load, name].tokens_per_second for name in BOTH)
    alone = levels[first, "plain"].tokens_per_second
    return {
        "load": load,
        "plain, tokens/s": plain,
        "speculative, tokens/s": speculative,
        "speculative over plain": speculative / plain if plain else None,
        f"plain over plain, {first}": plain / alone if alone else None,
    }


def _waiting(level: Level) -> Mapping[str, Value]:
    waits: dict[str, Sequence[float]] = {
        "TTFT": [reply.first_token_seconds for reply in level.whole],
        "token": [seconds for reply in level.whole if (seconds := reply.token_seconds) is not None],
        "gap": [gap for reply in level.whole for gap in reply.gap_seconds],
    }
    return {
        "requests": len(level.replies),
        "failed": len(level.replies) - len(level.whole),
        **{f"{name} p{at}, s": percentile(of, at) for name, of in waits.items() for at in (50, 90, 99)},
        **acceptance_row(level.whole),
    }
