"""Every field that shapes the samples, with speculation on: the tokens of a plain loop, and of speculation off."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adversary import Adversary, serve
from reference import Reference
from services import HALVES, StartService, decoder

from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from shared.errors import InvalidFieldError
from shared.model.engine.session import Session
from shared.model.sampling.sampler import Sampler
from shared.sampling_params import SamplingParams

MAX_TOKENS = 32
STOPS = frozenset(range(300, 330))  # so many that they come soon
PLAIN = SamplingParams(stop_token_ids=STOPS)
FIELDS: dict[str, SamplingParams] = {
    "frequency_penalty": replace(PLAIN, frequency_penalty=1.5, temperature=0.7),
    "presence_penalty": replace(PLAIN, presence_penalty=2.0, temperature=0.0),
    "negative penalties": replace(PLAIN, presence_penalty=-1.0, frequency_penalty=-0.5),
    "repetition_penalty": replace(PLAIN, repetition_penalty=1.25),
    "repetition_penalty below 1": replace(PLAIN, repetition_penalty=0.75, temperature=0.0),
    "logit_bias": replace(PLAIN, logit_bias={70: 4.0, 71: 6.5, 20: -100.0, 575: 1.0}),
    "min_p": replace(PLAIN, min_p=0.125, temperature=1.5),
    "min_tokens": replace(PLAIN, min_tokens=20),
    "all of them": SamplingParams(
        1.25, 0.9, 50, 0, STOPS, 0.0625, 0.5, 0.25, 1.125, {70: 5.0, 80: -3.0}, min_tokens=10
    ),
}
PROMPTS = [[random.Random(index).randrange(5, 400) for _ in range(5 + 23 * index)] for index in range(5)]


@pytest.fixture(scope="module")
def reference(toy: tuple[Path, Path]) -> Reference:
    """Return the plain loop."""
    return Reference(toy[0])


async def run(decode: Decoder, prompt: Sequence[int], params: SamplingParams, k: int) -> list[Round]:
    """Return the rounds."""
    return [done async for done in decode.decode(prompt, params, MAX_TOKENS, k)]


async def run_all(decode: Decoder, params: SamplingParams, k: int) -> list[list[Round]]:
    """Decode every prompt, all at once, each with its own seed."""
    asked = [run(decode, prompt, replace(params, seed=seed), k) for seed, prompt in enumerate(PROMPTS)]
    return await asyncio.gather(*asked)


def decode_all(reference: Reference, params: SamplingParams) -> list[list[int]]:
    """Decode every prompt by the plain loop, once for all tests."""
    if params not in EXPECTED:
        asked = [replace(params, seed=seed) for seed in range(len(PROMPTS))]
        pairs = zip(PROMPTS, asked, strict=True)
        EXPECTED[params] = [reference.decode(prompt, one, MAX_TOKENS) for prompt, one in pairs]
    return EXPECTED[params]


EXPECTED: dict[SamplingParams, list[list[int]]] = {}


def tokens(rounds: Sequence[Round]) -> list[int]:
    """Return what the rounds committed."""
    return [token_id for done in rounds for token_id in done.token_ids]


@pytest.mark.parametrize("params", FIELDS.values(), ids=FIELDS.keys())
async def test_on_equals_off_and_the_plain_loop(
    toy_decoder: Decoder, reference: Reference, params: SamplingParams
) -> None:
    """With k of 0, 1 and 5 the tokens are those of the plain loop, and they are not those without the field."""
    expected = decode_all(reference, params)
    assert expected != decode_all(reference, replace(PLAIN, temperature=params.temperature))
    for k in (0, 1, 5):
        results = await run_all(toy_decoder, params, k)
        assert [tokens(rounds) for rounds in results] == expected
        drafted = sum(done.num_drafted for rounds in results for done in rounds)
        accepted = sum(done.num_accepted for rounds in results for done in rounds)
        assert drafted == 0 if k == 0 else 0.15 < accepted / drafted < 0.85, (accepted, drafted)


@pytest.mark.parametrize("params", FIELDS.values(), ids=FIELDS.keys())
async def test_the_draft_guesses_likewise(start: StartService, toy: tuple[Path, Path], params: SamplingParams) -> None:
    """A draft that is the target itself guesses every token: it changes its logits as the target does."""
    target, draft = (start(f"{name}_service", model=toy[0], dtype="float32").address for name in HALVES)
    async with decoder(target, draft) as decode:
        rounds = await run(decode, PROMPTS[3], params, 4)
    assert sum(done.num_drafted for done in rounds) == sum(done.num_accepted for done in rounds) > 0


def test_a_rewritten_history_is_a_new_one() -> None:
    """Whatever was guessed and taken back, the next row is changed as by a session that never guessed."""
    rng = random.Random(1)
    params = replace(FIELDS["all of them"], output_start=4)
    tokens = [5, 6, 7, 8, 70, 5]
    session = Session(0, 1000, Sampler(params, tokens), tokens)
    for _ in range(50):
        position = rng.randint(5, len(session.token_ids))
        session.rewrite(position, [rng.randrange(60, 80) for _ in range(rng.randint(1, 5))])
        session.commit([session.sampler.draw(torch.randn(90), len(session.token_ids)) for _ in range(3)])
        fresh, rows = Sampler(params, session.token_ids), torch.randn(2, 90)
        for row in rows:
            changed = [row.clone(), row.clone()]
            for scores, one in zip(changed, (session.sampler, fresh), strict=True):
                for processor in one._processors:
                    processor.process(scores)
            torch.testing.assert_close(*changed, rtol=0, atol=0)
            assert not torch.equal(changed[0], row)


@pytest.mark.parametrize("params", FIELDS.values(), ids=FIELDS.keys())
async def test_whatever_the_draft_does(
    start: StartService, toy: tuple[Path, Path], toy_decoder: Decoder, reference: Reference, params: SamplingParams
) -> None:
    """An adversarial draft changes nothing."""
    target = start("target_service", model=toy[0], dtype="float32")
    expected = decode_all(reference, params)
    async with serve(Adversary(toy_decoder.target, min(STOPS))) as address, decoder(target.address, address) as decode:
        assert [tokens(rounds) for rounds in await run_all(decode, params, 5)] == expected


async def test_logprobs_are_the_targets_own(toy_decoder: Decoder, reference: Reference) -> None:
    """Of every token, accepted or not, to 1e-4 of the plain loop's, whatever changed the logits before sampling."""
    params = replace(FIELDS["all of them"], logprobs=True, top_logprobs=5)
    results = await run_all(toy_decoder, params, 4)
    assert sum(done.num_accepted for rounds in results for done in rounds) > 30
    for seed, (prompt, rounds) in enumerate(zip(PROMPTS, results, strict=True)):
        expected, distributions = reference.decode_with_logprobs(prompt, replace(params, seed=seed), MAX_TOKENS)
        assert tokens(rounds) == expected
        reported = [logprobs for done in rounds for logprobs in done.logprobs]
        for token_id, logprobs, distribution in zip(expected, reported, distributions, strict=True):
            assert abs(logprobs.logprob - distribution[token_id]) < 1e-4
            likeliest = np.sort(distribution)[::-1][:5]
            np.testing.assert_allclose(logprobs.top_logprobs, likeliest, atol=1e-4)
            np.testing.assert_allclose(logprobs.top_logprobs, distribution[logprobs.top_token_ids], atol=1e-4)
    silent = await run(toy_decoder, PROMPTS[0], replace(params, logprobs=False), 4)
    assert not any(done.logprobs for done in silent)


EXTREME = {
    "coldest": SamplingParams(1e-40, 0.9, 7),
    "hottest": SamplingParams(1e9),
    "biased": SamplingParams(repetition_penalty=1e-40, logit_bias={70: 3e38, 71: 3e38, 80: -3e38}),
}


@pytest.mark.parametrize("params", EXTREME.values(), ids=EXTREME.keys())
async def test_extreme_values(toy_decoder: Decoder, reference: Reference, params: SamplingParams) -> None:
    """With and without speculation the tokens are those of the plain loop, and nothing ends the service."""
    expected = decode_all(reference, params)
    for k in (0, 5):
        assert [tokens(rounds) for rounds in await run_all(toy_decoder, params, k)] == expected


async def test_no_token_left(toy_decoder: Decoder) -> None:
    """The request is refused with the reason, is tried nowhere else, and another one that runs beside it goes on."""
    forbidden = SamplingParams(0, stop_token_ids=frozenset(range(576)), min_tokens=MAX_TOKENS)
    beside = asyncio.create_task(run(toy_decoder, PROMPTS[1], PLAIN, 3))
    with pytest.raises(InvalidFieldError, match="stop_token_ids: with min_tokens, they forbid each token"):
        await run(toy_decoder, PROMPTS[0], forbidden, 3)
    assert tokens(await beside)
