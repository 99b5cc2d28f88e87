"""What holds for the toy pair holds for layers and a vocabulary of real sizes, on two threads."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from real_sizes import VOCABULARY, make_pair
from reference import sample
from services import Service, decoder, service

from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from shared.sampling_params import SamplingParams

MAX_TOKENS = 10
SLOTS = 8
LENGTHS = (10, 300, 33, 120, 64, 17, 200, 65)
GREEDY = SamplingParams(0)
SAMPLED = [
    SamplingParams(0.7, seed=1),
    SamplingParams(0.7, top_p=0.9, seed=2),
    SamplingParams(0.7, top_k=12, seed=3),
    SamplingParams(0.7, min_p=0.05, seed=4),
]
HOW = [how for sampled in SAMPLED for how in (GREEDY, sampled)]
RNG = random.Random(5)
PROMPTS = [RNG.choices(range(VOCABULARY), k=length) for length in LENGTHS]
KS = (1, 3, 4, 7, None)


@dataclass(frozen=True)
class Pair:
    """The target, and what decodes with it."""

    target: Service
    decode: Decoder

    async def rounds(
        self, prompt: Sequence[int], params: SamplingParams, k: int | None, max_tokens: int = MAX_TOKENS
    ) -> list[Round]:
        """Decode one prompt."""
        return [done async for done in self.decode.decode(prompt, params, max_tokens, k)]

    async def forget(self) -> None:
        """Clear all slots of anything that another prompt begins with."""
        await asyncio.sleep(0.3)  # a slot becomes free a moment after the last token
        await asyncio.gather(*(self.rounds([number, 1], GREEDY, 0, 1) for number in range(SLOTS)))
        await asyncio.sleep(0.3)


@pytest_asyncio.fixture(scope="module")
async def pair(toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Serve the pair, only for this file: it takes 2 GB."""
    folder = tmp_path_factory.mktemp("real-sizes")
    halves = make_pair(folder, toy[0])
    settings = {"threads": 2, "num_slots": SLOTS, "max_length": 512}
    with (
        service("target_service", folder / "target.log", model=halves[0], **settings) as target,
        service("draft_service", folder / "draft.log", model=halves[1], **settings) as draft,
    ):
        async with decoder(target.address, draft.address, deadline_seconds=60) as decode:
            yield Pair(target, decode)


@pytest_asyncio.fixture(scope="module")
async def plain(pair: Pair) -> list[list[int]]:
    """Decode every prompt with the target alone, one at a time."""
    return [tokens(await pair.rounds(prompt, how, 0)) for prompt, how in zip(PROMPTS, HOW, strict=True)]


def tokens(rounds: Sequence[Round]) -> list[int]:
    """Return what the rounds committed."""
    return [token_id for done in rounds for token_id in done.token_ids]


def test_there_is_something_to_see(plain: list[list[int]]) -> None:
    """No decoding gets stuck in a loop, so the comparisons mean something."""
    assert all(len(set(token_ids)) > MAX_TOKENS / 2 for token_ids in plain)


async def test_alone(pair: Pair, plain: list[list[int]]) -> None:
    """With any k, and with adaptive k: the tokens of the target alone. Some drafts are accepted, some are not."""
    await pair.forget()
    drafted = accepted = 0
    assert pair.decode.target.row_exact
    for index, (prompt, how) in enumerate(zip(PROMPTS, HOW, strict=True)):
        rounds = await pair.rounds(prompt, how, KS[index % len(KS)])
        assert tokens(rounds) == plain[index]
        drafted += sum(done.num_drafted for done in rounds)
        accepted += sum(done.num_accepted for done in rounds)
    assert 0.1 < accepted / drafted < 0.9


@pytest.mark.parametrize("shift", [1, 3])
async def test_eight_at_once(pair: Pair, plain: list[list[int]], shift: int) -> None:
    """Side by side, each with its own k: the same tokens as alone."""
    await pair.forget()
    ks = [KS[(index + shift) % len(KS)] for index in range(len(PROMPTS))]
    results = await asyncio.gather(*map(pair.rounds, PROMPTS, HOW, ks))
    assert [tokens(rounds) for rounds in results] == plain


@pytest.mark.parametrize("more", [{}, {"top_p": 0.6}, {"min_p": 0.1}], ids=["top_k", "top_p", "min_p"])
async def test_samples_are_the_references(pair: Pair, more: dict[str, float]) -> None:
    """Each token is what a plain implementation draws from the likeliest logits that the target reports."""
    params = SamplingParams(0.7, top_k=8, seed=6, logprobs=True, top_logprobs=20, **more)  # type: ignore[arg-type]
    prompt = PROMPTS[2]
    rounds = await pair.rounds(prompt, params, 3)
    told = [logprobs for done in rounds for logprobs in done.logprobs]
    for index, (token_id, logprobs) in enumerate(zip(tokens(rounds), told, strict=True)):
        logits = np.full(VOCABULARY, -np.inf, np.float32)
        logits[logprobs.top_token_ids] = logprobs.top_logprobs
        assert token_id == sample(logits, params, len(prompt) + index)
    assert len({*tokens(rounds)} - {logprobs.top_token_ids[0] for logprobs in told}) > 0


@pytest.mark.parametrize("how", [GREEDY, SAMPLED[1]], ids=["greedy", "sampled"])
async def test_cached_beginnings_change_nothing(pair: Pair, how: SamplingParams) -> None:
    """Neither from the session's own earlier turn, nor from another session, nor if eight begin alike at once."""
    how = replace(how, seed=9)
    text = PROMPTS[6]
    texts = [[*text[: 120 + 9 * number], *PROMPTS[4][number : number + 20]] for number in range(SLOTS)]
    await pair.forget()
    cold = await pair.rounds(texts[7], how, 0)
    again = await pair.rounds(texts[7], how, 4)
    assert tokens(again) == tokens(cold)
    await pair.forget()
    one = await pair.rounds(texts[0], how, 0)
    other = await pair.rounds(texts[7], how, 3)
    assert tokens(other) == tokens(cold)
    assert (cold[0].num_cached, one[0].num_cached) == (0, 0)
    assert min(again[0].num_cached, other[0].num_cached) >= 100
    await pair.forget()
    together = await asyncio.gather(*(pair.rounds(text, how, 4) for text in texts))
    assert [tokens(together[0]), tokens(together[7])] == [tokens(one), tokens(cold)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no threads to be seen")
def test_two_threads_computed(pair: Pair, plain: list[list[int]]) -> None:
    """The setting works although all services are forked with one thread: two threads did similar shares of work."""
    assert plain
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pair.target.pid}/task").iterdir()]
    first, second, *_ = sorted((int(stat.rpartition(")")[2].split()[11]) for stat in stats), reverse=True)
    assert second > first / 4
