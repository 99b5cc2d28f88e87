"""Finds out, at each start, which graphs give a row the same bits, and whether the device draws what the host draws.

Devices may round otherwise in a graph of another shape, as others have measured on Trainium; and one that computes
int32 products in float32, or the logarithm of small numbers badly, draws other tokens than everyone else.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import combinations, permutations, product
from timeit import repeat

import numpy as np
import structlog
import torch

from shared.model.devices.static.graph_choice import Draws, GraphChoice
from shared.model.devices.static.graphs import GraphKey, Graphs
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.runner import Segment
from shared.model.sampling.noise import noise_of, row_key, words_of
from shared.model.sampling.sampler import draw
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

log = structlog.get_logger()

NOISE_TOLERANCE = 1e-3  # logarithms err by less, and log(1 - u) of a small u by more
_WORDS = torch.cat([torch.arange(2048), torch.logspace(11, 31, 2048, 2, dtype=torch.float64).long() - 1]).int()
_GREEDY, *_SAMPLED = (SamplingParams(temperature, seed=1, logprobs=True) for temperature in (0, 1, 50))


def choose(runner: StaticRunner) -> None:
    """Let the runner use all graphs that its widest verify graphs agree with, and say which. Overwrites its slots."""
    sizes, narrow = runner.sizes, runner.choice
    if not all(_agrees(runner, narrow, GraphKey("verify", sizes.verify_rows, bucket)) for bucket in sizes.buckets):
        runner.inexact = "in the last slot they have other bits than in the first"
    wide = replace(narrow, wide_prefill=True)
    if all(_agrees(runner, wide, sizes.prefill(bucket)) for bucket in sizes.buckets):
        runner.choice = wide
    prefill_us, verify_us = _prompt_us(runner, wide), _prompt_us(runner, narrow)
    runner.choice = replace(runner.choice, prefill_us=prefill_us, verify_us=verify_us)
    for rows in reversed(sizes.row_counts[:-1]):
        fewer = replace(runner.choice, row_counts=(rows, *runner.choice.row_counts))
        if not all(_agrees(runner, fewer, GraphKey("verify", rows, bucket)) for bucket in sizes.buckets):
            break  # each trial compiles a graph, which takes minutes on a device
        runner.choice = fewer
    runner.choice = replace(runner.choice, larger_buckets=_larger_buckets_agree(runner))
    runner.choice = replace(runner.choice, draws=_draws(runner))
    runner.graph_choice = pb.GraphChoice(**asdict(runner.choice))
    if not runner.choice.wide_prefill:
        log.warning("prefill rounds otherwise than verify: prompts run through verify graphs")
    if runner.choice.draws != "all":
        log.warning("the device draws other tokens than the host, which draws instead", in_graph=runner.choice.draws)
    seconds = round(sum(warmed.seconds for warmed in runner.warmed), 1)
    log.info("graphs are warm", device=runner.device, graphs=len(runner.warmed), seconds=seconds, **vars(runner.choice))


def noise_survives(graphs: Graphs) -> bool:
    """Return whether the device computes the noise: the words of the whole vocabulary bit by bit, logarithms nearly."""
    token_ids = graphs.vocabulary.cpu().numpy()
    for seed in range(4):
        words, noise = graphs.noise(row_key(seed, seed), _WORDS)
        expected = torch.from_numpy(words_of(token_ids, seed, seed).view(np.int32))
        if not (torch.equal(words, expected) and (noise - noise_of(_WORDS)).abs().max() <= NOISE_TOLERANCE):
            return False
    return True


@contextmanager
def _trying(runner: StaticRunner, choice: GraphChoice) -> Iterator[None]:
    chosen, runner.choice = runner.choice, choice
    try:
        yield
    finally:
        runner.choice = chosen


def _agrees(runner: StaticRunner, choice: GraphChoice, key: GraphKey) -> bool:
    """Return whether rows have the same bits with this graph, of this choice, as with what the runner has chosen.

    In the last slot they must have those of the first, since which slot a row is of is its place in a verify graph.
    """
    runner.warm(key)
    expected = _logits(runner, key.num_keys, runner.sizes.verify_rows, 0)
    num_rows = min(key.num_rows, runner.sizes.verify_rows)
    with _trying(runner, choice):
        return all(torch.equal(_logits(runner, key.num_keys, num_rows, slot), expected) for slot in _slots(runner))


def _larger_buckets_agree(runner: StaticRunner) -> bool:
    """Return whether rows have the same bits with the keys of each larger bucket."""
    larger = replace(runner.choice, larger_buckets=True)
    for bucket, other in combinations(runner.sizes.buckets, 2):
        expected = _logits(runner, bucket, runner.sizes.verify_rows, 0)
        with _trying(runner, larger):
            for num_rows, (slot, beside) in product(runner.choice.row_counts, permutations(_slots(runner), 2)):
                if not torch.equal(
                    _logits(runner, bucket, num_rows, slot, Segment(beside, other - 1, [0], 1)), expected
                ):
                    return False
    return runner.num_slots > 1


def _slots(runner: StaticRunner) -> list[int]:
    """Return the first and the last slot."""
    return sorted({0, runner.num_slots - 1})


def _logits(runner: StaticRunner, bucket: int, num_rows: int, slot: int, *beside: Segment) -> torch.Tensor:
    """Run a prompt and some tokens after it up to a bucket's end, so many rows at once; returns the latter's logits.

    The prompt is a chunk and a part of one, or what fits; before it, the slot holds zeros. Returns [rows, V].
    """
    sizes = runner.sizes
    runner.clear(slot)
    before = max((other for other in sizes.buckets if other < bucket), default=0)
    size = min(bucket - before, sizes.prefill_rows + 3 + sizes.verify_rows)
    prompt = max(size // 2, size - sizes.verify_rows)
    ids, start = random.Random(bucket).choices(range(runner.vocab_size), k=size), bucket - size  # noqa: S311 - no secret
    if prompt:
        runner.extend([Segment(slot, start, ids[:prompt], 0), *beside])
    segments = [Segment(slot, start + at, ids[at : at + num_rows], num_rows) for at in range(prompt, size, num_rows)]
    return torch.cat([runner.extend([segment, *beside])[0].logits for segment in segments])


def _prompt_us(runner: StaticRunner, choice: GraphChoice) -> int:
    """Return what a prompt of a prefill and a verify takes, in microseconds."""
    size = min(runner.sizes.prefill_rows + runner.sizes.verify_rows, runner.sizes.buckets[0])
    with _trying(runner, choice):
        return round(1e6 * min(repeat(lambda: runner.extend([Segment(0, 0, [0] * size, 1)]), number=1, repeat=2)))


def _draws(runner: StaticRunner) -> Draws:
    """Return what the host may leave to the graphs to draw."""
    if not _draws_as_host(runner, _GREEDY):
        return "nothing"
    survives = runner.graphs.all_say(noise_survives(runner.graphs))  # each rank knows its part of the vocabulary
    sampled = survives and all(_draws_as_host(runner, params) for params in _SAMPLED)
    return "all" if sampled else "greedy"


def _draws_as_host(runner: StaticRunner, params: SamplingParams) -> bool:
    """Return whether each verify graph draws what the host draws of its logits, in the first and the last slot."""
    with _trying(runner, replace(runner.choice, larger_buckets=False, draws="all")):
        for bucket, num_rows in product(runner.sizes.buckets, runner.choice.row_counts):
            ids, start = list(range(min(num_rows, bucket))), max(0, bucket - num_rows)
            segments = [Segment(slot, start, ids, len(ids), params) for slot in _slots(runner)]
            for rows in runner.extend(segments):
                if rows.drawn != [draw(row, params, start + 1 + at) for at, row in enumerate(rows.logits)]:
                    return False
    return True
