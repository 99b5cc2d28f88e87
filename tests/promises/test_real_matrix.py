"""The real pair, whatever the draft, k, the load, the cache and the processor: `make test-real`.

A plain reference is the target alone, one session at a time. Time on two cores without AMX, at 5.5 tokens/s plain, 11
alone, 13 for eight at once, and 15 ms per prompt token (all 24 prompts have 4,400 together); about one in six replies
ends before 96 tokens:

    plain       48 replies, the prompts once                  12 + 1 minutes
    alone       96 runs, a prompt each                        12 + 4
    at once     96 runs, a prompt each                        10 + 4
    other ISAs  two, each 12 plain replies and 24 runs        2 * 5
    tests/test_real_pair.py                                   3

That is 56 minutes with the target in bfloat16; with its file's own blocks about 20. A processor with
AMX has one ISA more, and prompts in a third of the time.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import pytest
import pytest_asyncio
from own_process import OwnProcess, own_process
from pairwise import LENGTHS, LOADS, Run, design, uncovered
from real_prompts import Prompt, load_prompts
from services import decoder
from test_isas import environment

from benchmarks.machine import Machine
from gateway.rounds.decoder import Decoder
from gateway.text.tokenizer import ChatTokenizer
from shared.model.checkpoints.pairs import resolve_half
from shared.model.devices.cpu.kernels.processor import flags
from shared.sampling_params import SamplingParams

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

TEMPERATURES = (0.0, 0.8)
MAX_TOKENS, MAX_TOKENS_FORCED = 96, 64
NUM_FORCED = 6
FEW = 5  # tokens that even a cold prompt may find in the cache: all chats begin with the same three
PROMPTS = load_prompts()
MACHINE = Machine.here()


@dataclass(frozen=True)
class Request:
    """A prompt with its parameters, which is asked repeatedly."""

    prompt: Prompt
    token_ids: list[int]
    params: SamplingParams
    max_tokens: int


@dataclass(frozen=True)
class Job:
    """A request, the way to decode it, and the tokens that it must have."""

    request: Request
    run: Run
    expected: list[int]


@dataclass
class Report:
    """What was compared with plain decoding."""

    kernels: dict[tuple[str, str], str] = field(default_factory=dict)
    """The kernel of each target and ISA."""
    num_runs: int = 0
    num_tokens: int = 0
    differences: list[str] = field(default_factory=list)

    def compare(self, isa: str, job: Job, token_ids: Sequence[int]) -> None:
        """Count a run, and note where its tokens differ from the expected ones."""
        self.num_runs += 1
        self.num_tokens += len(token_ids)
        if list(token_ids) == job.expected:
            return
        both = zip(token_ids, job.expected, strict=False)
        place = next((i for i, (a, b) in enumerate(both) if a != b), min(len(token_ids), len(job.expected)))
        run, request = job.run, job.request
        self.differences.append(
            f"{request.prompt.id}: token {place} of {len(job.expected)} is {token_ids[place : place + 1]},"
            f" not {job.expected[place : place + 1]}: k {run.k or 'auto'}, {run.load} at once, {run.cache},"
            f" prompt of {len(request.token_ids)}, T {request.params.temperature}, ISA {isa}"
        )


@dataclass(frozen=True)
class Pair:
    """The services with the real pair, on one ISA."""

    isa: str
    decode: Decoder
    target: OwnProcess


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Collect what all tests of this file compare, and print it at the end."""
    report, started = Report(), perf_counter()
    yield report
    line = (
        f"real pair: {report.num_runs} runs, {report.num_tokens} tokens, {len(report.differences)} runs differ,"
        f" {perf_counter() - started:.0f} s; {MACHINE.cpu} ({MACHINE.flags}), {MACHINE.cores} cores;"
        f" {', '.join(f'{model} on {isa}: {kernel}' for (model, isa), kernel in report.kernels.items())}"
    )
    writer = request.config.pluginmanager.get_plugin("terminalreporter")
    assert writer
    writer.write_line(f"\n{line}")


@pytest.fixture(scope="module", params=["none", "gguf"])
def folders(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """Return the folders of the real pair: the target with its weights in bfloat16, or as the file has them; draft."""
    return resolve_half("qwen-coder", 0, quant=request.param), resolve_half("qwen-coder", 1)


@pytest.fixture(scope="module")
def tokenizer(folders: tuple[Path, Path]) -> ChatTokenizer:
    """Return the pair's tokenizer."""
    return ChatTokenizer.load(str(folders[0]))


@asynccontextmanager
async def serving(
    report: Report, folders: tuple[Path, Path], logs: Path, isa: str, env: dict[str, str]
) -> AsyncIterator[Pair]:
    """Serve the pair with this environment, on all cores."""
    with (
        own_process("target_service", logs / "target.log", env, model=folders[0]) as target,
        own_process("draft_service", logs / "draft.log", env, model=folders[1], quant="auto") as draft,
    ):
        async with decoder(target.address, draft.address, 60) as decode:
            assert decode.target.row_exact
            report.kernels[folders[0].name, isa] = decode.target.kernel
            yield Pair(isa, decode, target)


def make_requests(
    tokenizer: ChatTokenizer, prompts: Sequence[Prompt], temperature: float, max_tokens: int
) -> list[Request]:
    """Return a request for each prompt."""
    requests = []
    for seed, prompt in enumerate(prompts):
        params = SamplingParams(temperature, 0.95, seed=seed, stop_token_ids=tokenizer.stop_token_ids)
        requests.append(Request(prompt, prompt.encode(tokenizer), params, max_tokens))
        assert len(requests[-1].token_ids) in LENGTHS[prompt.length]
    return requests


async def plain(decode: Decoder, request: Request) -> list[int]:
    """Return the tokens of the target alone."""
    rounds = decode.decode(request.token_ids, request.params, request.max_tokens, 0)
    return [token_id async for done in rounds for token_id in done.token_ids]


async def run_job(decode: Decoder, job: Job, holding: AsyncExitStack) -> tuple[list[int], Run]:
    """Return the tokens, and the run with the actual state of its cache.

    If the beginning is to be cached, another session first runs it and decodes a little. For a run alone, that session
    then ends; otherwise it keeps its slot, which `holding` releases once the run has begun.
    """
    request, run = job.request, job.run
    if run.cache == "cached":
        cut = random.Random(request.prompt.id + str(run)).randrange(FEW + 1, len(request.token_ids))
        other = [*request.token_ids[:cut], *(token_id ^ 1 for token_id in request.token_ids[cut : cut + 8])]
        holder = decode.decode(other, SamplingParams(0), 2, 0)
        holding.push_async_callback(holder.aclose)
        await anext(holder)
        if run.load == 1:
            await holding.aclose()
    lookups = 0 if run.k else None
    token_ids: list[int] = []
    found = 0
    async for done in decode.decode(
        request.token_ids, request.params, request.max_tokens, run.k, num_lookup_tokens=lookups
    ):
        if not token_ids:
            found = done.num_cached
            await holding.aclose()
        token_ids += done.token_ids
    return token_ids, replace(run, cache="cached" if found > FEW else "cold")


async def run_jobs(pair: Pair, report: Report, jobs: Sequence[Job], at_once: int) -> list[Run]:
    """Run the jobs in order, as many at once as have slots; return the runs as they really were."""
    turns, entering = asyncio.Semaphore(at_once), asyncio.Lock()

    async def run_one(job: Job) -> Run:
        async with AsyncExitStack() as held, AsyncExitStack() as holding:
            async with entering:
                await turns.acquire()
                held.callback(turns.release)
                if job.run.cache == "cached" and at_once > 1:  # the session with the beginning takes a slot, too
                    await turns.acquire()
                    holding.callback(turns.release)
            token_ids, happened = await run_job(pair.decode, job, holding)
        report.compare(pair.isa, job, token_ids)
        return happened

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(run_one(job)) for job in jobs]
    return [task.result() for task in running]


def check_differences(report: Report, before: int) -> None:
    """Fail with all differing runs that were added since there were `before` of them."""
    if found := report.differences[before:]:
        pytest.fail("\n".join(["not equal to plain decoding:", *found]), pytrace=False)


@pytest.mark.parametrize("isa", ["avx2", "avx512_core", "avx512_core_bf16"])
async def test_forced_isa(
    report: Report, folders: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path, isa: str
) -> None:
    """On a lesser ISA, six greedy and six sampled short prompts, alone and at once, get that ISA's own plain tokens."""
    env = environment(isa)
    if isa == "avx512_core_bf16" and "amx_bf16" not in flags():
        pytest.skip("this processor's own")
    short = [prompt for prompt in PROMPTS if prompt.length == "short"]
    requests = [  # different prompts for each temperature, or the second would find what the first left in the cache
        request
        for turn, temperature in enumerate(TEMPERATURES)
        for request in make_requests(tokenizer, short[turn * NUM_FORCED :][:NUM_FORCED], temperature, MAX_TOKENS_FORCED)
    ]
    runs_of_prompts = design(["short"] * len(requests), seed=2)
    before = len(report.differences)
    async with serving(report, folders, tmp_path, isa, env) as pair:
        expected = [await plain(pair.decode, request) for request in requests]
        for load in LOADS:
            runs = [next(run for run in runs if run.load == load) for runs in runs_of_prompts]
            jobs = [Job(*job) for job in zip(requests, runs, expected, strict=True)]
            await run_jobs(pair, report, jobs, load)
    check_differences(report, before)


@pytest_asyncio.fixture(scope="module")
async def own(
    report: Report, folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    """Serve the pair on this processor's own ISA."""
    async with serving(report, folders, tmp_path_factory.mktemp("own"), "own", {}) as pair:
        yield pair


References = dict[float, list[tuple[Request, list[int]]]]  # by temperature, in the prompts' order


@pytest_asyncio.fixture(scope="module")
async def references(own: Pair, tokenizer: ChatTokenizer) -> References:
    """Decode each prompt plainly: first greedily, with none of it in the cache, then sampled."""
    requests = {t: make_requests(tokenizer, PROMPTS, t, MAX_TOKENS) for t in TEMPERATURES}
    references: References = {t: [] for t in TEMPERATURES}
    for same_prompt in zip(*requests.values(), strict=True):
        for temperature, request in zip(TEMPERATURES, same_prompt, strict=True):
            references[temperature].append((request, await plain(own.decode, request)))
    return references


@pytest.mark.parametrize("temperature", TEMPERATURES)
async def test_own_isa(own: Pair, report: Report, references: References, temperature: float) -> None:
    """Four runs of each of 24 prompts give the plain tokens, and any two values of k, load, cache and length meet."""
    seed = TEMPERATURES.index(temperature)
    runs_of_prompts = design([prompt.length for prompt in PROMPTS], seed)
    before, happened = len(report.differences), list[Run]()
    for load in LOADS:
        loaded = [[run for run in runs if run.load == load] for runs in runs_of_prompts]
        # All prompts run between two runs of the same one: by then another session has taken its slot.
        jobs = [
            Job(request, runs[turn], expected)
            for turn in range(len(loaded[0]))
            for runs, (request, expected) in zip(loaded, references[temperature], strict=True)
        ]
        happened += await run_jobs(own, report, jobs, load)
    check_differences(report, before)
    assert uncovered(happened) == set()


@pytest.mark.usefixtures("references")
def test_all_cores(own: Pair) -> None:
    """The target computed on every core, up to two: each had a thread about as busy as the busiest."""
    seconds = own.target.thread_seconds()
    if not seconds:
        pytest.skip("no /proc here")
    cores = min(2, len(os.sched_getaffinity(0)))
    assert sum(of_thread > seconds[0] / 2 for of_thread in seconds) >= cores, seconds
