"""The samples have the distribution of the softmax, and the noise is what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import noise
from scipy import stats

from shared.model.noise import gumbel
from shared.model.rows import Rows
from shared.model.sampler import Sampler, draw
from shared.model.verifier import verify
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


@pytest.mark.parametrize(
    ("params", "samples"),
    [
        (SamplingParams(1.0), 100_000),
        (SamplingParams(0.7, top_k=5), 20_000),
        (SamplingParams(1.2, top_p=0.8), 20_000),
    ],
    ids=["plain", "top_k", "top_p"],
)
def test_speculative_samples_follow_the_softmax(params: SamplingParams, samples: int) -> None:
    """Tokens committed by rounds of 3 drafts, themselves drawn with the same noise, pass a chi-square test."""
    torch.manual_seed(0)
    vocabulary = 8
    target = torch.randn(vocabulary)
    draft = target + 0.7 * torch.randn(vocabulary)
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
    assert stats.chisquare(counts[kept], expected).pvalue > 0.001
    assert 0.4 < accepted / drafted < 0.95


@pytest.mark.parametrize("spread", [0.01, 3.0, 9.0])
def test_tokens_spared_their_noise_could_not_have_won(spread: float) -> None:
    """Without top-k and top-p the token drawn is the one of the greatest logit plus noise among them all."""
    torch.manual_seed(1)
    token_ids = torch.arange(20_000, dtype=torch.int32)
    for position in range(60):
        logits = torch.randn(20_000) * spread
        winner = int((logits + gumbel(token_ids, 5, position)).argmax())
        assert draw(logits, SamplingParams(temperature=1.0, seed=5), position) == winner
