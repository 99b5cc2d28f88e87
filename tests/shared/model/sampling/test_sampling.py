"""The samples have the distribution of the softmax, and the noise is what it says."""

import itertools
import math
import random
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from reference import changed, noise, sample
from scipy import stats

from shared.errors import NoTokenError
from shared.model.devices.static.draw_in_graph import DrawInputs, draw_in_graph
from shared.model.engine.verifier import verify
from shared.model.runner import NO_TOKEN, Rows
from shared.model.sampling.noise import gumbel
from shared.model.sampling.sampler import Sampler, draw
from shared.sampling_params import SamplingParams


def test_noise_is_the_reference_noise() -> None:
    """Two implementations, in int32 and in uint64, agree on the noise of any token at any position for any seed."""
    for seed, position in [(0, 0), (1, 77), (-(2**63), 2**20), (2**63 - 1, 3)]:
        ours = gumbel(torch.arange(5000, dtype=torch.int32), seed, position)
        np.testing.assert_allclose(ours.numpy(), noise(5000, seed, position), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0, -100, 100])
def test_greedy_takes_the_first_of_the_greatest(dtype: torch.dtype, shift: int) -> None:
    """Whatever the signs of the logits, ties included."""
    torch.manual_seed(0)
    for _ in range(20):
        logits = torch.randint(-9, 9, (100,)).to(dtype) + shift
        assert draw(logits, SamplingParams(0), 5) == int(logits.float().argmax())


@pytest.mark.parametrize("vary", ["seed", "position"])
def test_noise_is_gumbel(vary: str) -> None:
    """Over seeds as over positions, one token's noise has the Gumbel distribution."""
    token = torch.tensor([17], dtype=torch.int32)
    values = [float(gumbel(token, i if vary == "seed" else 5, i if vary == "position" else 5)) for i in range(20_000)]
    assert stats.kstest(values, "gumbel_r").pvalue > 0.001


LARGE = 2000  # more than may all be tried at once


@pytest.mark.parametrize(
    ("params", "vocabulary", "spread", "samples"),
    [
        (SamplingParams(1.0), 8, 1.0, 100_000),
        (SamplingParams(0.7, top_k=5), 8, 1.0, 20_000),
        (SamplingParams(1.2, top_p=0.8), 8, 1.0, 20_000),
        (SamplingParams(0.05), LARGE, 0.1, 4000),
        (SamplingParams(0.7), LARGE, 1.0, 4000),
        (SamplingParams(1.0), LARGE, 2.0, 4000),
        (SamplingParams(2.0), LARGE, 3.0, 4000),
        (SamplingParams(50.0), LARGE, 3.0, 4000),
        (SamplingParams(50.0), LARGE, 100.0, 4000),
    ],
    ids=lambda value: f"{value.temperature:g}" if isinstance(value, SamplingParams) else f"{value:g}",
)
def test_speculative_samples_follow_the_softmax(
    params: SamplingParams, vocabulary: int, spread: float, samples: int
) -> None:
    """Tokens committed by rounds of 3 drafts, themselves drawn with the same noise, pass a chi-square test."""
    torch.manual_seed(0)
    target = spread * torch.randn(vocabulary)
    draft = target + 0.7 * min(spread, params.temperature) * torch.randn(vocabulary)
    counts, accepted, drafted, position = np.zeros(vocabulary), 0, 0, 0
    sampler = Sampler(replace(params, seed=99))
    while position < samples:
        guesses = [verify(Rows([draft[None]]), [], sampler, position + i).token_ids[0] for i in range(3)]
        verdict = verify(Rows([target.expand(4, -1)]), guesses, sampler, position)
        np.add.at(counts, verdict.token_ids, 1)
        position += len(verdict.token_ids)
        accepted, drafted = accepted + verdict.num_accepted, drafted + 3
    scores = (target / params.temperature).double().numpy()
    order = np.argsort(-scores)
    probabilities = np.exp(scores) / np.exp(scores).sum()
    kept = order[: params.top_k or None]
    before = np.cumsum(probabilities[kept]) - probabilities[kept]
    kept = kept[before < params.top_p]
    expected = probabilities[kept] / probabilities[kept].sum() * counts.sum()
    assert counts[kept].sum() == counts.sum()
    pools = pooled(expected)
    assert len(pools) > 2
    assert stats.chisquare(np.add.reduceat(counts[kept], pools), np.add.reduceat(expected, pools)).pvalue > 0.001
    assert 0.2 < accepted / drafted < 0.98


def pooled(expected: npt.NDArray[np.float64]) -> list[int]:
    """Return where pools of neighbours begin, of at least 20 expected each: fewer, and a chi-square is none."""
    pools, filled = [0], 0.0
    for index, count in enumerate(expected):
        if filled >= 20 <= expected[index:].sum():
            pools.append(index)
            filled = 0.0
        filled += count
    return pools


@pytest.mark.parametrize("spread", [0.01, 3.0, 9.0])
def test_tokens_spared_their_noise_could_not_have_won(spread: float) -> None:
    """Without top-k and top-p the token drawn is the one of the greatest logit plus noise among them all."""
    torch.manual_seed(1)
    token_ids = torch.arange(20_000, dtype=torch.int32)
    for position in range(60):
        logits = torch.randn(20_000) * spread
        winner = int((logits + gumbel(token_ids, 5, position)).argmax())
        assert draw(logits, SamplingParams(temperature=1.0, seed=5), position) == winner


EXTREMES: dict[str, list[float]] = {
    "temperature": [0, 1e-40, 1e-7, 1e-4, 0.05, 1, 50, 1e9],
    "top_p": [1e-40, 1e-4, 0.4567, 1],
    "top_k": [0, 1, 2, 1999, 2000, 2**31 - 1],
    "min_p": [0, 1e-40, 0.1, 1],
    "repetition_penalty": [1e-40, 1, 1000],
    "frequency_penalty": [-2, 0, 2],
}


@pytest.mark.parametrize("vocabulary", [50, LARGE])
@pytest.mark.parametrize("spread", [0.01, 3.0, 1e30])
def test_every_value_that_is_accepted_gives_the_references_token(vocabulary: int, spread: float) -> None:
    """Alone and together, with biases as large as floats are and tokens that are forbidden."""
    rng, generator = random.Random(vocabulary), np.random.default_rng(0)
    alone = [{name: value} for name, values in EXTREMES.items() for value in values]
    together = [{name: rng.choice(values) for name, values in EXTREMES.items()} for _ in range(150)]
    for seed, fields in enumerate([*alone, *together]):
        bias = {rng.randrange(vocabulary): rng.choice([-3e38, 3e38, 5]) for _ in range(rng.randrange(4))}
        params = SamplingParams(seed=seed, logit_bias=bias, **fields)  # type: ignore[arg-type]  # top_k is one of ints
        logits = (spread * generator.standard_normal(vocabulary)).astype(np.float32)
        logits[generator.random(vocabulary) < rng.choice([0, 0.5, 0.99])] = -np.inf
        logits[rng.randrange(vocabulary)] = 1
        history = [rng.randrange(vocabulary) for _ in range(9)]
        expected = sample(changed(logits, params, history[:4], history[4:]), params, len(history))
        sampler = Sampler(replace(params, output_start=4), history)
        assert sampler.draw(torch.from_numpy(logits), len(history)) == expected, params


NOTHING = {"nan": [math.nan] * LARGE, "one nan": [1.0] * 1999 + [math.nan], "all forbidden": [-math.inf] * LARGE}


@pytest.mark.parametrize("values", NOTHING.values(), ids=NOTHING.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_without_a_token_is_an_error(values: list[float], dtype: torch.dtype) -> None:
    """Of its own kind, greedy and sampled, whichever way is drawn, and where the device draws."""
    logits = torch.tensor(values, dtype=dtype)
    for sign, more in itertools.product((1, -1), ({}, {"top_p": 0.5}, {"top_k": 3}, {"min_p": 0.1})):
        row = logits.copysign(torch.tensor(sign)) if logits.isnan().any() else logits
        for temperature in (0, 1e-40, 1.0, 1e9):
            params = SamplingParams(temperature, **more)  # type: ignore[arg-type]  # top_k is no float
            with pytest.raises(NoTokenError, match="no token can be drawn at position 7"):
                draw(row, params, 7)
    draws = DrawInputs.greedy(2, 1)
    draws.temperature[1] = 1
    drawn = draw_in_graph(logits.expand(2, 1, -1), torch.arange(LARGE, dtype=torch.int32), draws)
    assert drawn.flatten().tolist() == [NO_TOKEN, NO_TOKEN]
    with pytest.raises(NoTokenError, match="position 8"):
        verify(Rows([logits.expand(2, -1)], [5, NO_TOKEN]), [5], Sampler(SamplingParams(1)), 7)
