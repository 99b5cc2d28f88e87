"""What is left out to draw faster changes no token: the definition, written out over all tokens, gives the same."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import NoTokenError
from shared.model.sampling.noise import MAX_NOISE, gumbel, noise_of, with_noise
from shared.model.sampling.sampler import draw
from shared.sampling_params import SamplingParams


def plainly(logits: torch.Tensor, params: SamplingParams, position: int) -> int | None:
    """Draw as `draw` says it does, with each token masked and each token's noise; None if there is nothing to draw."""
    scores = logits.float()
    if scores.isnan().any() or scores.amax() == -torch.inf:
        return None
    if not params.greedy:
        scores = scores.clamp(max=torch.finfo(torch.float32).max)
        scores = (scores - scores.amax()) / params.temperature
        if params.min_p > 0:
            scores[scores < math.log(params.min_p)] = -torch.inf
        if 0 < params.top_k < len(scores):
            scores[scores < scores.sort(descending=True).values[params.top_k - 1]] = -torch.inf
        if params.top_p < 1:
            likeliest = scores.sort(descending=True).values
            reached = (likeliest - scores.logsumexp(-1)).exp().cumsum(-1) >= params.top_p
            scores[scores < likeliest[reached.int().argmax() if reached.any() else -1]] = -torch.inf
        scores += gumbel(torch.arange(len(scores)), params.seed, position)
    return int((scores == scores.amax()).nonzero()[0])


@st.composite
def rows(draw: st.DrawFn) -> torch.Tensor:
    """Rows with ties, tokens that are forbidden, too large and not numbers; sizes around the borders of the ways."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([1, 2, 63, 64, 65, 640, 1024, 1025, 2000, 70_001]))
    row = torch.randn(size, generator=generator) * draw(st.sampled_from([0, 1e-42, 0.01, 1, 3, 20, 1e30]))
    if draw(st.booleans()):
        row = (row * 2).round() / 2
    row[torch.rand(size, generator=generator) < draw(st.sampled_from([0, 0, 0.5, 0.99, 1]))] = -torch.inf
    for odd in draw(st.lists(st.sampled_from([torch.inf, -torch.inf, -0.0, 0.0, 3e38, -3e38]), max_size=3)):
        row[draw(st.integers(0, size - 1))] = odd
    if draw(st.integers(0, 19)) == 0:
        row[draw(st.integers(0, size - 1))] = torch.nan
    return row.to(draw(st.sampled_from([torch.float32, torch.bfloat16])))


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 1e-5, 1e-4, 0.05, 0.7, 0.8, 1, 1, 2, 50, 1e9]),
    top_p=st.sampled_from([1, 1, 1, 1e-40, 1e-4, 0.5, 0.8, 0.95, 0.999999]) | st.floats(0.01, 1),
    top_k=st.sampled_from([0, 0, 1, 2, 20, 63, 64, 1000, 1999, 2**31 - 1]),
    min_p=st.sampled_from([0, 0, 0, 1e-40, 0.01, 0.1, 1]),
    seed=st.integers(-(2**63), 2**63 - 1),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(row=rows(), params=PARAMS, position=st.integers(0, 2**31))
def test_draws_are_those_of_the_plain_definition(row: torch.Tensor, params: SamplingParams, position: int) -> None:
    """Whatever the logits and the parameters."""
    expected = plainly(row, params, position)
    if expected is None:
        with pytest.raises(NoTokenError):
            draw(row, params, position)
    else:
        assert draw(row, params, position) == expected


@pytest.mark.parametrize("top_p", [0.3, 0.8, 0.95])
def test_a_close_nucleus_is_decided_as_ever(top_p: float) -> None:
    """Where the sum of the likeliest all but equals top_p, one token more or less is what float32 makes of it."""
    torch.manual_seed(0)
    for position in range(200):
        row = torch.randn(300) * 2
        share = float(row.softmax(-1).sort(descending=True).values.cumsum(-1).float()[int(top_p * 20)])
        for close in (share, math.nextafter(share, 0), math.nextafter(share, 1), share + 1e-7):
            params = SamplingParams(1.0, min(close, 1.0), seed=position)
            assert draw(row, params, position) == plainly(row, params, position)


def test_no_noise_is_above_its_bound() -> None:
    """The least word's is the greatest noise; and who asks for the tokens of so much noise gets them all."""
    assert 22 < float(noise_of(torch.zeros((), dtype=torch.int32))) < MAX_NOISE
    token_ids = torch.arange(50_000)
    noise = gumbel(token_ids, 3, 4)
    for least in (-3.0, 0.0, 2.0, 8.0):
        chosen = with_noise(token_ids.numpy(), least, 3, 4)  # a token's place is its number
        missing = set((noise >= least).nonzero().flatten().tolist()) - set(chosen.tolist())
        assert not missing
        assert len(chosen) <= (noise >= least - 0.01).sum()
