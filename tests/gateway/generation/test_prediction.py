"""Predicted outputs and who proposes, in the API."""

from time import thread_time
from typing import Any

import httpx
import pytest
import scripted_gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_gateway import ROUND_TIME, TEXT, Gateway, error_of, events

from gateway.generation import common_tokens
from gateway.generation.common_tokens import num_in_reply
from gateway.rounds.round import ProposerName, Round

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted


@pytest.mark.parametrize(
    ("predicted", "reply", "accepted"),
    [
        ([1, 2, 3], [1, 2, 3], 3),
        ([1, 2, 3], [4, 5, 6], 0),
        ([1, 2, 3, 4, 5], [1, 9, 3, 4, 5], 4),
        ([1, 2, 3, 4, 5], [1, 2], 2),
        ([1, 2], [1, 2, 3, 4, 5], 2),
        (list(range(3000)), [*range(1000), 5000, *range(1200, 3000)], 2800),
        ([1] * 3000, [1] * 3000, 3000),
        ([9, *[1, 2, 3] * 1000], [*[1, 2, 3] * 1000, 8], 3000),
        (list(range(9000, -1, -3)), list(range(9001)), 1),
        ([], [1], 0),
    ],
)
def test_tokens_that_appear_in_the_reply(predicted: list[int], reply: list[int], accepted: int) -> None:
    """A prediction's tokens are accepted where the reply has them in the same order."""
    assert num_in_reply(predicted, reply) == accepted


@given(*[st.lists(st.integers(0, 5), max_size=60)] * 2, st.sampled_from([3, 8192]))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_the_count_is_the_longest_common_subsequence(predicted: list[int], reply: list[int], block: int) -> None:
    """Claim: whatever repeats, and in however many blocks it is counted, it is what the textbook's table says."""
    lengths = [0] * (len(reply) + 1)
    for token_id in predicted:
        before = [0, *lengths]
        for number, other in enumerate(reply, 1):
            lengths[number] = before[number] + 1 if token_id == other else max(before[number + 1], lengths[number - 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common_tokens, "_BLOCK", block)
        assert num_in_reply(predicted, reply) == lengths[-1]


def test_repetition_is_counted_quickly() -> None:
    """Claim: a prediction of repeated tokens takes no longer than any other; difflib took 98 s for 600 of them."""
    predicted, reply = [1, 2] * 4000, [2, 2, 1] * 2000
    started = thread_time()
    assert num_in_reply(predicted, reply) == 5999
    assert thread_time() - started < 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("parts", [False, True])
async def test_prediction(scripted: Gateway, *, stream: bool, parts: bool) -> None:
    """Claim: a prediction, whole or in parts, reaches the decoder as tokens, and the usage says what it was worth."""
    text = "the horse rides behind"
    content = [{"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]}] if parts else text
    fields: dict[str, Any] = {
        "prediction": {"type": "content", "content": content},
        "stream_options": {"include_usage": True},
    }
    response = await scripted.post(stream=stream, **fields)
    token_ids = scripted.tokenizer.encode(text, add_special_tokens=False)
    assert scripted.decoder.lookups == [(6, token_ids)]
    usage = (events(response)[-2] if stream else response.json())["usage"]
    accepted = num_in_reply(token_ids, scripted.tokenizer.encode(TEXT, add_special_tokens=False))
    assert 0 < accepted < len(token_ids)
    assert usage["completion_tokens_details"] == {
        "reasoning_tokens": 0,
        "accepted_prediction_tokens": accepted,
        "rejected_prediction_tokens": len(token_ids) - accepted,
    }
    assert usage["completion_tokens"] == len(scripted.tokenizer.encode(TEXT)) + 1


async def test_no_prediction(scripted: Gateway) -> None:
    """Claim: without a prediction nothing is said of one."""
    assert (await scripted.post()).json()["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.parametrize(
    ("prediction", "param"),
    [
        ({"type": "tokens", "content": "a"}, "prediction.type"),
        ({"type": "content"}, "prediction.content"),
        ({"type": "content", "content": 5}, "prediction.content"),
        ("a", "prediction"),
    ],
)
async def test_bad_prediction(scripted: Gateway, prediction: Any, param: str) -> None:
    """Claim: a malformed prediction is a 400 that names the field."""
    response = await scripted.post(prediction=prediction)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("speculative", "numbers"),
    [
        ({}, (4, 6)),
        ({"k": 7}, (7, 7)),
        ({"proposer": "model"}, (4, 0)),
        ({"proposer": "lookup"}, (0, 6)),
        ({"proposer": "lookup", "k": 8}, (0, 8)),
        ({"enabled": False}, (0, 0)),
    ],
)
async def test_proposer(scripted: Gateway, speculative: dict[str, Any], numbers: tuple[int, int]) -> None:
    """Claim: a request chooses who proposes, and how many draft tokens."""
    await scripted.post(speculative=speculative)
    assert (scripted.decoder.calls[0][3], scripted.decoder.lookups[0][0]) == numbers


async def test_metrics_by_proposer(scripted: Gateway) -> None:
    """Claim: acceptance is reported for each proposer that had a draft, in the response and to Prometheus."""
    names: list[ProposerName] = ["model", "lookup", "lookup"]
    script = [Round([5, 6], 3, 1, None, ROUND_TIME, proposer=name) for name in names]
    scripted.decoder.script = [*script, Round([2], 0, 0, "stop", ROUND_TIME)]
    metrics = (await scripted.post(speculative={"metrics": True})).json()["metrics"]["speculative_decoding"]
    drafts = {name: (one["num_drafts"], one["num_draft_tokens"]) for name, one in metrics["by_proposer"].items()}
    assert drafts == {"model": (1, 3), "lookup": (2, 6)}
    async with httpx.AsyncClient(base_url=scripted.url) as client:
        exposition = (await client.get("/metrics")).text
    assert 'outrider_accepted_tokens_total{proposer="lookup"} 2.0' in exposition
