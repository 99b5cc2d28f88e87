"""The design of the real pair's matrix, and its prompts; runs whether or not the pair is on this machine."""

from collections import Counter

import pytest
from pairwise import CACHES, KS, LENGTHS, LOADS, LOADS_OF_A_PROMPT, design, uncovered
from real_prompts import load_prompts

PROMPTS = load_prompts()
PROMPT_LENGTHS = [prompt.length for prompt in PROMPTS]


@pytest.mark.parametrize("seed", range(20))
def test_any_two_values_meet(seed: int) -> None:
    """Each prompt has four different runs, two of each load, and together the runs cover every pair of values."""
    runs_of_prompts = design(PROMPT_LENGTHS, seed)
    for length, runs in zip(PROMPT_LENGTHS, runs_of_prompts, strict=True):
        assert len(set(runs)) == 4
        assert [run.load for run in runs] == [*LOADS_OF_A_PROMPT]
        assert {run.length for run in runs} == {length}
    every = [run for runs in runs_of_prompts for run in runs]
    assert {run.k for run in every} == {*KS}
    assert {run.load for run in every} == {*LOADS}
    assert {run.cache for run in every} == {*CACHES}
    assert uncovered(every) == set()
    assert min(Counter((run.k, run.load, run.cache) for run in every).values()) >= 2


def test_seeded() -> None:
    """The same seed gives the same runs, and another seed gives others."""
    assert design(PROMPT_LENGTHS, 0) == design(PROMPT_LENGTHS, 0) != design(PROMPT_LENGTHS, 1)


def test_a_pair_that_is_missing_is_found() -> None:
    """Without the runs in which two values meet, their pair is uncovered, but other pairs with these values are not."""
    every = [run for runs in design(PROMPT_LENGTHS, 0) for run in runs]
    missing = uncovered(run for run in every if (run.load, run.k) != (8, 7))
    assert ((1, 8), (2, 7)) in missing
    assert not missing & {((1, 1), (2, 7)), ((1, 8), (2, 4))}


def test_prompts() -> None:
    """There are 24 prompts, of all kinds and lengths, and no two begin alike."""
    assert len(PROMPTS) == len({prompt.id for prompt in PROMPTS}) == 24
    assert len({prompt.kind for prompt in PROMPTS}) >= 12
    assert {*PROMPT_LENGTHS} == {*LENGTHS}
    assert len({(prompt.system or prompt.text).split()[0] for prompt in PROMPTS}) == 24
