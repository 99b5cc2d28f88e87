"""What the proposers that need no model find, and what it costs them."""

import random
import time
from itertools import pairwise

import pytest

from draft_service.ngram_index import NgramIndex
from draft_service.prediction import Prediction
from draft_service.prompt_lookup import PromptLookup
from draft_service.proposer import Lookup


def longest_match(text: list[int], least: int) -> tuple[int, int]:
    """Return length and end of the longest match of the text's end within it, of several the latest, by brute force."""
    found = (0, 0)
    for end in range(1, len(text)):
        length = 0
        while length < min(end, 64) and text[end - 1 - length] == text[-1 - length]:
            length += 1
        if length >= max(least, found[0]):
            found = (length, end)
    return found


@pytest.mark.parametrize("vocabulary", [2, 4, 50])
def test_index_finds_the_longest_and_latest_match(vocabulary: int) -> None:
    """The index and a brute-force search agree after every token of a random text."""
    rng = random.Random(vocabulary)
    text: list[int] = []
    index = NgramIndex(3)
    for _ in range(60):
        text.append(rng.randrange(vocabulary))
        index.extend(text[-1:])
        match = index.find(text)
        assert ((match.length, match.end) if match else (0, 0)) == longest_match(text, 3)


def test_lookup_proposes_what_followed_and_no_more_than_it_matched() -> None:
    """After 1 2 3 4, which stood at the start, come 5 6 7 8: four tokens, for four matched."""
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2], 3)
    assert lookup.guess(8).token_ids == ()
    lookup.commit([3])
    assert lookup.guess(8).token_ids == [4, 5, 6]
    lookup.commit([4])
    assert lookup.guess(8).token_ids == [5, 6, 7, 8]
    assert lookup.guess(2).token_ids == [5, 6]
    assert lookup.guess(0).token_ids == []


def test_lookup_goes_on_with_a_repetition() -> None:
    """Of a text that repeats itself, more is proposed than stands behind the match."""
    assert PromptLookup([7, 1, 2] + [1, 2] * 4, 3).guess(6).token_ids == [1, 2, 1, 2, 1, 2]


ORIGINAL = list(range(100, 160))


def follow(prediction: Lookup, reply: list[int], num_tokens: int) -> int:
    """Commit the reply in rounds as the services do, and return how many rounds that takes."""
    rounds = 0
    while reply:
        guess = prediction.guess(num_tokens).token_ids
        accepted = next((i for i, (a, b) in enumerate(zip(guess, reply, strict=False)) if a != b), len(guess))
        prediction.commit(reply[: accepted + 1])
        reply, rounds = reply[accepted + 1 :], rounds + 1
    return rounds


@pytest.mark.parametrize(
    ("reply", "max_rounds"),
    [
        (ORIGINAL, 7),  # 60 tokens, 9 a round
        ([*ORIGINAL[:20], 1, *ORIGINAL[21:]], 8),  # another word in the place of one
        ([*ORIGINAL[:20], 1, 2, 3, *ORIGINAL[20:]], 11),  # three words put in: one round each
        ([*ORIGINAL[:20], *ORIGINAL[30:]], 7),  # words left out
        ([*ORIGINAL[30:], *ORIGINAL[:30]], 12),  # halves exchanged: three tokens tell where it goes on
        ([1] * 10, 10),  # nothing of it
    ],
    ids=["same", "replaced", "inserted", "deleted", "moved", "other"],
)
def test_prediction_is_followed_through_edits(reply: list[int], max_rounds: int) -> None:
    """A reply that departs from its prediction is found in it again within a few rounds."""
    assert follow(Prediction(ORIGINAL, 3), reply, 8) <= max_rounds


def test_prediction_begins_where_the_reply_begins() -> None:
    """The first guess is the prediction's beginning; where there is none, there is no guess."""
    assert Prediction(ORIGINAL, 3).guess(3).token_ids == ORIGINAL[:3]
    assert Prediction([], 3).guess(3).token_ids == []


@pytest.mark.parametrize("repeats", [False, True])
def test_a_round_costs_the_same_at_any_length(repeats: bool) -> None:  # noqa: FBT001
    """A round at 32,000 tokens takes no more than 5 times one at 1,000, also where every token is the same."""
    rng = random.Random(1)
    costs = []
    for length in (1_000, 32_000):
        text = [5 if repeats else rng.randrange(100) for _ in range(length)]
        lookup, prediction = PromptLookup(text, 3), Prediction(text, 3)
        times = []
        for _ in range(50):
            started = time.perf_counter()
            for proposer in (lookup, prediction):
                proposer.commit([5 if repeats else rng.randrange(100)])
                proposer.guess(16)
            times.append(time.perf_counter() - started)
        costs.append(min(times))
    assert all(late < 5 * early for early, late in pairwise(costs)), costs
