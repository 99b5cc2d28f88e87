"""Other engines on the same prompts in the same run, as they decode alone and with their own speculation."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import httpx

from benchmarks import prompts
from benchmarks.client import TIMEOUT, Ask, Client, models, user
from benchmarks.comparison import Comparison
from benchmarks.engines.engine import Generate
from benchmarks.engines.known import ENGINES, UnavailableError, assistant_k
from benchmarks.reply import Reply
from benchmarks.section import Section, Value
from benchmarks.single import BOTH

PLAIN = "plain"
CACHING_TOKENS = 8  # generated before an answer is timed: enough for a draft to have run the prompt, too


@dataclass(frozen=True)
class Way:
    """A mode of an engine."""

    engine: str
    mode: str
    weights: str
    ask: Ask

    @property
    def name(self) -> str:
        """As the tables have it."""
        return f"{self.engine}, {self.mode}"


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--repeats", type=int, default=1, help="how often each prompt is asked in each way")
    flags.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES), help="that run here beside ours")
    flags.add_argument("--url", help="of a server of OpenAI's API, without /v1: vLLM, llama-server")
    flags.add_argument("--model", help="its model; the first that it lists if not given")
    flags.set_defaults(num_slots=4)


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    section = Section("Peers")
    asked = prompts.load(args.prompts, args.limit)
    async with AsyncExitStack() as running:
        ways = await _ways(client, args, running, section)
        comparison = await Comparison.run("peers", asked, {way.name: way.ask for way in ways}, args.repeats)
    ours, theirs = ([way.name for way in part] for part in (ways[: len(BOTH)], ways[len(BOTH) :]))
    section.problems += comparison.failures()
    section.problems += [f"{prompt_id}: our own texts differ" for prompt_id in comparison.unequal(*ours)]
    speeds = {name: speed for name in theirs if (speed := comparison.mean_speed(name))}
    fastest = max(speeds, key=speeds.__getitem__, default="")
    if ratio := comparison.mean_ratio(ours[-1], fastest):
        section.notes.append(f"Ours, speculative, is {ratio:.2f} times as fast as the fastest peer: {fastest}.")
    section.notes.append(
        f"{len(asked)} prompts, each asked {args.repeats} times in each way, in turns, {args.max_tokens} tokens at "
        f"most; theirs greedy, with {assistant_k(args)} draft tokens. Tokens per second are geometric means over "
        f"prompts. Before it is timed, a prompt is asked for {CACHING_TOKENS} tokens, which leaves it in the cache; "
        "transformers keeps none." + (f" Server: {args.url}." if args.url else "")
    )
    section.table("Tokens/s, prompts in the cache", [_way_row(comparison, way) for way in ways])
    if speeds:
        section.table("Ours over theirs", [_ratio_row(comparison, name, peer) for peer in speeds for name in ours])
    return section


async def _ways(client: Client, args: Namespace, running: AsyncExitStack, section: Section) -> list[Way]:
    """Return ours, then theirs, started for as long as `running`; note which engines are left out."""
    dtype = (await client.http.get("/version")).raise_for_status().json()["dtype"]
    ways = [Way("ours", mode, dtype, _cached(client, fields)) for mode, fields in BOTH.items()]
    for name in args.engines:
        try:
            engine = ENGINES[name](args)
        except UnavailableError as error:
            section.notes.append(f"Without {name}: {error}.")
            continue
        for mode in engine.modes:
            generate = await running.enter_async_context(engine.running(mode))
            ask = _generating(client, generate, keeps_prompts=engine.keeps_prompts)
            ways.append(Way(engine.name, mode, engine.weights, ask))
    if args.url:
        http = await running.enter_async_context(httpx.AsyncClient(base_url=args.url, timeout=TIMEOUT))
        other = replace(client, http=http, model=args.model or (await models(http))[0])
        ways.append(Way("server", other.model, "", _cached(other, {})))
    return ways


def _cached(client: Client, fields: Mapping[str, object]) -> Ask:
    """Return how to ask a server about a prompt that it has in its cache."""
    first, then = replace(client, max_tokens=CACHING_TOKENS).asking(fields), client.asking(fields)

    async def ask(prompt: str) -> Reply:
        await first(prompt)
        return await then(prompt)

    return ask


def _generating(client: Client, generate: Generate, *, keeps_prompts: bool) -> Ask:
    """Return how to ask an engine the same, for the very tokens that our gateway makes of a prompt."""

    async def ask(prompt: str) -> Reply:
        response = await client.http.post("/tokenize", json={"messages": user(prompt)})
        ids: Sequence[int] = response.raise_for_status().json()["tokens"]
        if keeps_prompts:
            await generate(ids, CACHING_TOKENS)
        return await generate(ids, client.max_tokens)

    return ask


def _way_row(comparison: Comparison, way: Way) -> Mapping[str, Value]:
    kinds = dict.fromkeys(prompt.kind for prompt in comparison.prompts)
    own_plain = replace(way, mode=PLAIN).name
    equal = f"{comparison.num_equal(way.name, own_plain)} of {len(comparison.prompts)}"
    return {
        "": way.name,
        "weights": way.weights,
        "geometric mean": comparison.mean_speed(way.name),
        **{kind: comparison.mean_speed(way.name, (kind,)) for kind in kinds},
        "texts as its own plain": equal if own_plain in comparison.variants and own_plain != way.name else None,
    }


def _ratio_row(comparison: Comparison, name: str, peer: str) -> Mapping[str, Value]:
    return {
        "": name,
        "theirs": peer,
        "code, edit, json, structured": comparison.mean_ratio(name, peer, prompts.STRUCTURED),
        "open": comparison.mean_ratio(name, peer, (prompts.OPEN,)),
        "all": comparison.mean_ratio(name, peer),
        "lowest": min(comparison.ratios(name, peer)),
        "texts equal": f"{comparison.num_equal(name, peer)} of {len(comparison.prompts)}",
    }
