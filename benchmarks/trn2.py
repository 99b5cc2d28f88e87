"""AWS's published Trainium2 workload on this gateway, beside AWS's figures: deploy/benchmarks/trn2."""

import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from benchmarks import prompts
from benchmarks.client import PLAIN, SPECULATIVE, Client, served, speculating, user
from benchmarks.flags import numbers
from benchmarks.load import Generator, Level, failures
from benchmarks.machine import ROOT
from benchmarks.progress import progress
from benchmarks.section import Section, Value
from benchmarks.single import acceptance_row
from benchmarks.spread import percentile

FOLDER = ROOT / "deploy" / "benchmarks" / "trn2"
SONNET = """\
Shall I compare thee to a summer's day? Thou art more lovely and more temperate: rough winds do shake the darling buds
of May, and summer's lease hath all too short a date; sometime too hot the eye of heaven shines, and often is his gold
complexion dimmed; and every fair from fair sometime declines, by chance or nature's changing course untrimmed."""
WHOLE = {"ignore_eos": True}  # always as many tokens as asked for

Levels = Mapping[tuple[str, str], Level]  # by kind of prompt and way of decoding


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--ks", type=numbers, default="5-15", help="the ks, as 5,7,15 or 5-15")
    flags.add_argument("--concurrency", type=int, default=4, help="requests at once")
    flags.add_argument("--requests", type=int, default=2, help="that each of them sends, one after the other")
    flags.add_argument("--prompt-tokens", type=int, default=64, help="of each request, besides the chat's own")
    flags.add_argument("--seconds", type=float, default=3600, help="no load sends requests for longer")
    flags.set_defaults(max_tokens=600, num_slots=4, prompts=FOLDER / "prompts.jsonl")


async def run(client: Client, args: Namespace) -> Section:
    """Measure."""
    told = await served(client.http)
    published = tomllib.loads((FOLDER / "published.toml").read_text("utf-8"))
    section = Section("AWS's workload on Trainium2" + (": SIMULATED, not measured" if "simulated" in told else ""))
    asked = [await fitted(client.http, one, args.prompt_tokens) for one in prompts.load(args.prompts, args.limit)]
    levels = await measure(client, asked, args)
    section.problems += failures(levels)
    kinds = list(dict.fromkeys(prompt.kind for prompt in asked))
    figures = published["milliseconds"]
    section.table("Milliseconds a token, p50", [_row(levels, kind, figures.get(kind, {})) for kind in kinds])
    section.table("Ways of decoding", [_way_row(levels, kinds, way) for way in dict.fromkeys(way for _, way in levels)])
    section.notes.append(
        f"{args.concurrency} requests at once, {args.requests} by each client and kind of prompt, about "
        f"{args.prompt_tokens} tokens in besides the chat's own, {args.max_tokens} out. k: so many tokens of the draft "
        "model in every round; auto: as the gateway does by itself. A prompt is filled up with the beginning of a poem."
    )
    section.notes.append(f"Published: {published['source']}. {published['setup']}.")
    return section


async def measure(client: Client, asked: Sequence[prompts.Prompt], args: Namespace) -> Levels:
    """Send every kind of prompt in every way of decoding."""
    ways: dict[str, Mapping[str, Any]] = {"plain": PLAIN}
    ways |= {f"k={k}": speculating(k=k, proposer="model") for k in args.ks}
    ways["auto"] = SPECULATIVE
    kinds = list(dict.fromkeys(prompt.kind for prompt in asked))
    levels: dict[tuple[str, str], Level] = {}
    with progress("trn2", len(ways) * len(kinds)) as advance:
        for way, fields in ways.items():
            await client.chat(user(prompts.WARM_UP), fields, max_tokens=8)
            for kind in kinds:
                of_kind = [prompt for prompt in asked if prompt.kind == kind]
                generator = Generator(client, of_kind, {**fields, **WHOLE}, args.seconds)
                levels[kind, way] = await generator.closed_loop(args.concurrency, args.requests)
                advance()
    return levels


async def fitted(http: httpx.AsyncClient, prompt: prompts.Prompt, num_tokens: int) -> prompts.Prompt:
    """Return the prompt, filled up to `num_tokens` tokens with a sonnet before it. Raises httpx.HTTPError.

    What `prompts.unseen` puts before it counts too; a prompt that is longer stays as it is.
    """

    async def post(path: str, **body: Any) -> Any:
        return (await http.post(path, json=body)).raise_for_status().json()

    own = await post("/tokenize", prompt=prompts.unseen(f"\n{prompt.text}"), add_special_tokens=False)
    room = num_tokens - own["count"]
    if room <= 0:
        return prompt
    filling = await post("/tokenize", prompt=SONNET, add_special_tokens=False)
    text = (await post("/detokenize", tokens=filling["tokens"][:room]))["prompt"]
    return replace(prompt, text=f"{text}\n{prompt.text}")


def _milliseconds(level: Level) -> float | None:
    seconds = percentile([value for reply in level.whole if (value := reply.token_seconds) is not None], 50)
    return None if seconds is None else seconds * 1000


def _row(levels: Levels, kind: str, published: Mapping[str, float]) -> Mapping[str, Value]:
    ours = {way: _milliseconds(level) for (of, way), level in levels.items() if of == kind}
    names = {"plain": "published: plain", "speculative": "published: speculative"}
    return {"prompts": kind, **ours, **{name: published.get(key) for key, name in names.items()}}


def _way_row(levels: Levels, kinds: Sequence[str], way: str) -> Mapping[str, Value]:
    replies = [reply for kind in kinds for reply in levels[kind, way].whole]
    seconds = sum(levels[kind, way].seconds for kind in kinds)
    return {
        "": way,
        "tokens/s": sum(reply.completion_tokens for reply in replies) / seconds,
        "TTFT p50, s": percentile([reply.first_token_seconds for reply in replies], 50),
        "tokens in": percentile([reply.prompt_tokens for reply in replies], 50),
        "tokens out": percentile([reply.completion_tokens for reply in replies], 50),
        "requests": len(replies),
        **acceptance_row(replies),
    }
