"""Chooses runs for each prompt, so that any two values of two factors meet in some run."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations, product
from typing import Literal

Length = Literal["short", "medium", "long"]
Cache = Literal["cold", "cached"]
Pair = tuple[tuple[int, object], tuple[int, object]]  # of a factor's place and its value

LENGTHS: dict[Length, range] = {"short": range(10, 100), "medium": range(100, 500), "long": range(500, 2101)}
"""How many tokens a prompt has."""
LOADS = (1, 8)
KS = (1, 3, 4, 7, None)
CACHES: tuple[Cache, ...] = ("cold", "cached")
LOADS_OF_A_PROMPT = (1, 1, 8, 8)


@dataclass(frozen=True)
class Run:
    """One way to decode a prompt."""

    length: Length
    load: int
    """How many sessions are decoded at once."""
    k: int | None
    """Draft tokens per round; None means as many as pay, from lookups or the draft model."""
    cache: Cache
    """Whether another session has already run the beginning of the prompt."""

    def pairs(self) -> set[Pair]:
        """Return the pairs of values that meet in this run."""
        return set(combinations(enumerate(astuple(self)), 2))


def design(lengths: Sequence[Length], seed: int) -> list[list[Run]]:
    """Return four different runs for each prompt, two of each load, so that all pairs occur about equally often."""
    rng = random.Random(seed)
    uses: Counter[Pair] = Counter()
    chosen: list[list[Run]] = []
    for length in lengths:
        runs: list[Run] = []
        for load in LOADS_OF_A_PROMPT:
            fresh = [run for k, cache in product(KS, CACHES) if (run := Run(length, load, k, cache)) not in runs]
            rng.shuffle(fresh)
            runs.append(min(fresh, key=lambda run: sorted(uses[pair] for pair in run.pairs())))
            uses.update(runs[-1].pairs())
        chosen.append(runs)
    return chosen


def uncovered(runs: Iterable[Run]) -> set[Pair]:
    """Return the pairs of values that occur in none of these runs."""
    every = (Run(*values) for values in product(LENGTHS, LOADS, KS, CACHES))
    return set().union(*(run.pairs() for run in every)) - set().union(*(run.pairs() for run in runs))
