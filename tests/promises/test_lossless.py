"""One seed, one output: whatever the draft, k, and the load."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from adversary import Adversary, serve
from reference import Reference
from services import StartService, decoder

from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from shared.sampling_params import SamplingParams

MAX_TOKENS = 24
STOP = 3  # any token will do


@dataclass(frozen=True)
class Case:
    """One request."""

    prompt: list[int]
    params: SamplingParams
    k: int


def make_cases(count: int, longest: int = 90) -> list[Case]:
    """Make requests with prompts on both sides of the cache's key grains, all ways of sampling, and k from 1 to 8."""
    rng = random.Random(7)
    shapes = [(0.0, 1.0, 0), (1.0, 1.0, 0), (0.8, 0.95, 40), (1.3, 0.7, 0), (0.5, 1.0, 5)]
    cases = []
    for index in range(count):
        temperature, top_p, top_k = shapes[index % len(shapes)]
        prompt = [rng.randrange(5, 400) for _ in range(rng.randint(1, longest))]
        params = SamplingParams(temperature, top_p, top_k, rng.randrange(-(2**63), 2**63), frozenset({STOP}))
        cases.append(Case(prompt, params, 1 + index % 8))
    return cases


CASES = make_cases(40)  # each way of sampling with each k
Result = tuple[list[int], int, int]  # tokens, how many drafted, how many accepted


async def run(decode: Decoder, case: Case, k: int | None = None) -> Result:
    """Return the tokens of a case, and how many were drafted and accepted."""
    tokens, drafted, accepted = [], 0, 0
    async for done in decode.decode(case.prompt, case.params, MAX_TOKENS, case.k if k is None else k):
        tokens += done.token_ids
        drafted += done.num_drafted
        accepted += done.num_accepted
    return tokens, drafted, accepted


async def run_all(decode: Decoder, cases: Sequence[Case], at_once: int, k: int | None = None) -> list[Result]:
    """Run the cases, `at_once` at a time."""
    turns = asyncio.Semaphore(at_once)

    async def one(case: Case) -> Result:
        async with turns:
            return await run(decode, case, k)

    return await asyncio.gather(*map(one, cases))


@asynccontextmanager
async def paired(start: StartService, toy: tuple[Path, Path], draft: str, dtype: str) -> AsyncIterator[Decoder]:
    """Decode with the toy target and a draft of this kind."""
    target = start("target_service", model=toy[0], dtype=dtype)
    if draft == "adversarial":
        async with decoder(target.address, None) as plain:
            adversary = Adversary(plain.target, STOP)
        async with serve(adversary) as address, decoder(target.address, address) as decode:
            yield decode
        assert adversary.num_proposals > 0
        return
    folder = {"good": toy[1], "perfect": toy[0]}[draft]
    address = start("draft_service", model=folder, dtype=dtype).address
    async with decoder(target.address, address) as decode:
        yield decode


@pytest.fixture(scope="module")
def expected(toy: tuple[Path, Path]) -> list[list[int]]:
    """Decode every case with the plain loop."""
    reference = Reference(toy[0])
    return [reference.decode(case.prompt, case.params, MAX_TOKENS) for case in CASES]


@pytest_asyncio.fixture(scope="module")
async def alone(start: StartService, toy: tuple[Path, Path]) -> list[list[int]]:
    """Decode every case with the target alone in bfloat16, one session at a time."""
    async with decoder(start("target_service", model=toy[0], dtype="bfloat16").address, None) as decode:
        return [tokens for tokens, _, _ in await run_all(decode, CASES, at_once=1, k=0)]


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("draft", ["good", "perfect", "adversarial"])
async def test_float32_equals_plain_loop(
    start: StartService, toy: tuple[Path, Path], expected: list[list[int]], draft: str, at_once: int
) -> None:
    """Over 40 prompts and k from 1 to 8 the tokens are those of transformers' own logits in a plain loop."""
    async with paired(start, toy, draft, "float32") as decode:
        results = await run_all(decode, CASES, at_once)
    assert [tokens for tokens, _, _ in results] == expected
    acceptance = sum(accepted for _, _, accepted in results) / sum(drafted for _, drafted, _ in results)
    low, high = {"good": (0.3, 0.95), "perfect": (0.999, 1), "adversarial": (0, 0.3)}[draft]
    assert low <= acceptance <= high


async def test_float32_without_speculation(
    start: StartService, toy: tuple[Path, Path], expected: list[list[int]]
) -> None:
    """The target alone gives the tokens of the plain loop, 8 sessions at once."""
    async with paired(start, toy, "good", "float32") as decode:
        results = await run_all(decode, CASES, at_once=8, k=0)
    assert results == [(tokens, 0, 0) for tokens in expected]


@pytest.mark.parametrize("draft", ["good", "perfect", "adversarial"])
async def test_bfloat16_on_equals_off(
    start: StartService, toy: tuple[Path, Path], alone: list[list[int]], draft: str
) -> None:
    """In bfloat16, every k and every load gives the tokens of the target alone, one session at a time."""
    async with paired(start, toy, draft, "bfloat16") as decode:
        assert decode.target.row_exact
        for at_once in (1, 8):
            results = await run_all(decode, CASES, at_once)
            assert [tokens for tokens, _, _ in results] == alone


async def test_cached_prefix_changes_nothing(start: StartService, toy: tuple[Path, Path]) -> None:
    """In bfloat16, a prompt whose beginning, of any length, is already in a slot goes on like an entirely new one."""
    params = SamplingParams(temperature=1.0, seed=5)
    rng = random.Random(3)
    text = [rng.randrange(5, 400) for _ in range(200)]
    async with paired(start, toy, "good", "bfloat16") as decode:
        fresh = await run(decode, Case(text, params, 4))
        for cut in (1, 63, 64, 65, 127, 150, 199):
            await run_all(decode, [Case([5, *text[index:]], params, 0) for index in range(8)], at_once=8)
            await run(decode, Case(text[:cut], params, 0))
            await asyncio.sleep(0.2)  # the slot becomes free a moment after the last token
            rounds = [done async for done in decode.decode(text, params, MAX_TOKENS, 4)]
            assert [token_id for done in rounds for token_id in done.token_ids] == fresh[0]
            assert rounds[0].num_cached >= cut - 1
            assert not any(done.num_cached for done in rounds[1:])


@pytest.mark.parametrize("draft", ["good", "adversarial"])
async def test_adaptive_k_changes_nothing(
    start: StartService, toy: tuple[Path, Path], expected: list[list[int]], draft: str
) -> None:
    """If 8 sessions at once choose k and lookups round by round, the tokens are still those of the plain loop."""
    turns = asyncio.Semaphore(8)
    async with paired(start, toy, draft, "float32") as decode:

        async def one(case: Case) -> list[Round]:
            async with turns:
                rounds = decode.decode(case.prompt, case.params, MAX_TOKENS, None, num_lookup_tokens=None)
                return [done async for done in rounds]

        results = await asyncio.gather(*map(one, CASES))
    assert [[token for done in rounds for token in done.token_ids] for rounds in results] == expected
    assert len({done.num_drafted for rounds in results for done in rounds}) > 2
