"""What is looked up and what the draft model decodes, in one proposal."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from services import StartService

from draft_service.lookups import Lookups
from draft_service.prediction import Prediction
from gateway.clients.draft.proposal import Proposal
from gateway.rounds.round import ProposerName, Round
from gateway.rounds.round_time import RoundTime
from gateway.speculation.adaptive_k import AdaptiveK
from gateway.speculation.speculation import Speculation
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc

PROMPT, K = list(range(40, 70)), 6
SAMPLING = pb.SamplingParams(temperature=1, seed=5, top_p=1)


async def proposal(draft: str, predicted: Sequence[int] = (), **ask: Any) -> list[pb.DraftResponse]:
    """Return the parts of a first proposal, with this prediction."""
    async with grpc.aio.insecure_channel(draft) as channel:
        call = pb_grpc.DraftServiceStub(channel).Draft()
        opening = pb.DraftOpen(
            prompt_token_ids=PROMPT, sampling=SAMPLING, num_draft_tokens=K, predicted_token_ids=predicted, **ask
        )
        await call.write(pb.DraftRequest(open=opening))
        parts: list[pb.DraftResponse] = []
        while not parts or not parts[-1].last:
            part = await call.read()
            assert isinstance(part, pb.DraftResponse)
            parts.append(part)
        return parts


def told(parts: Sequence[pb.DraftResponse]) -> tuple[list[int], int]:
    """Return the draft tokens of a proposal, and in how many passes they were made."""
    assert [part.position for part in parts] == [
        len(PROMPT) + sum(len(part.token_ids) for part in parts[:at]) for at in range(len(parts))
    ]
    passes = [timing for part in parts for timing in part.token_timings]
    return [token_id for part in parts for token_id in part.token_ids], len(passes)


@pytest.mark.parametrize("right", range(K + 1))
async def test_what_is_looked_up_saves_passes_and_changes_no_draft_token(
    start: StartService, toy: tuple[Path, Path], right: int
) -> None:
    """The model proposes what it would propose alone, in as many passes fewer as the lookup foresaw."""
    draft = start("draft_service", model=toy[1], dtype="float32").address
    alone, passes = told(await proposal(draft))
    assert (len(alone), passes) == (K, K)
    found = [*alone[:right], *(token_id + 1 for token_id in alone[right:])]
    parts = await proposal(draft, found, num_lookup_tokens=K, min_lookup_acceptance=100)
    saved = min(right, K - 1)
    assert told(parts) == (alone, K - saved)
    sources = [part.proposer for part in parts for _ in part.token_ids]
    assert sources == [pb.PROPOSER_PREDICTION] * saved + [pb.PROPOSER_DRAFT_MODEL] * (K - saved)
    unchecked = await proposal(draft, found, num_lookup_tokens=K, min_lookup_acceptance=1)
    assert told(unchecked) == (found, 0)  # sure enough, and proposed as it is


def test_the_record_tells_how_sure_a_lookup_is() -> None:
    """Each guess is held against what came, sent or not: right ones raise what is expected, and wrong ones lower it."""
    text = list(range(100, 160))
    expected: dict[int, list[float]] = {}
    for wrong in (0, 1):
        lookups = Lookups([Prediction(text, 3)])
        lookups.commit(text[:1])
        for token_id in text[1:20]:
            guess = lookups.guess(8)
            assert list(guess.token_ids) == text[token_id - 100 :][:8]
            expected.setdefault(wrong, []).append(lookups.expected(guess))
            lookups._guess = type(guess)(guess.kind, [token_id + wrong], guess.match, guess.score)
            lookups.commit([token_id])
    assert expected[0] == sorted(expected[0])
    assert expected[1] == sorted(expected[1], reverse=True)
    assert expected[1][-1] < 1 < expected[0][0] < expected[0][-1]


def test_rounds_count_by_source() -> None:
    """Of a proposal that both had a part in, each proposer has its own draft tokens and accepted ones."""
    time = RoundTime(0, 0, 0, 0, 0)
    both: list[ProposerName] = ["memory", "memory", "model", "model", "model"]
    made = Round([1, 2, 3, 4], 5, 3, None, time, proposer="model", sources=both)
    assert made.by_proposer() == {"memory": (2, 2), "model": (3, 1)}
    made = Round([1, 2], 5, 1, None, time, proposer="model", sources=both)
    assert made.by_proposer() == {"memory": (2, 1), "model": (3, 0)}
    assert Round([1, 2], 5, 1, None, time, proposer="lookup").by_proposer() == {"lookup": (5, 1)}
    forced = Round([1, 2, 3], 3, 1, None, time, proposer="model", sources=both[1:], forced=[1])
    assert forced.by_proposer() == {"memory": (1, 1), "model": (2, 0)}


TARGET_MS, DRAFT_MS, NUM_TOKENS, MAX_K = 45, 9, 1500, 12


def edited(reply: Sequence[int], share: float) -> list[int]:
    """Return a text with this share of its tokens exchanged."""
    rng = random.Random(1)
    return [rng.randrange(5, 400) if rng.random() < share else token_id for token_id in reply]


def tokens_per_second(k: int | None, num_lookup_tokens: int | None, share: float, rate: float) -> float:
    """Return the speed of a long reply in simulated time, with a prediction of which so much is wrong.

    The draft model is right at this rate. Its proposals are as `Proposals` has them made: what is looked up and sure as
    it is, or else the model's own, a pass for each token that it did not find confirmed.
    """
    rng, reply = random.Random(2), random.Random(3).choices(range(5, 400), k=NUM_TOKENS)
    lookups = Lookups([Prediction(edited(reply, share), 3)])
    speculation = Speculation(MAX_K, 1, [pb.PassCost(num_rows=rows, forward_us=TARGET_MS * 1000) for rows in (1, 16)])
    adaptive_k, at, ms = AdaptiveK(speculation, k, num_lookup_tokens, predicted=True), 0, 0
    while at < NUM_TOKENS:
        decision = adaptive_k.next(NUM_TOKENS - at, 1)
        guess, drawn, passes = lookups.guess(decision.num_lookup_tokens), list[int](), 0
        proposer = guess.kind
        if guess.token_ids and not (decision.k and lookups.expected(guess) < decision.min_lookup_acceptance):
            drawn = list(guess.token_ids)
        elif decision.k:
            sure = next((i for i in range(1, decision.k) if rate**i < decision.min_confidence), decision.k)
            drawn = [one if rng.random() < rate else 0 for one in reply[at : at + sure]]
            pairs = zip(lookups.likely(guess), drawn, strict=False)
            confirmed = next(
                (i for i, (theirs, ours) in enumerate(pairs) if theirs != ours), len(lookups.likely(guess))
            )
            passes, proposer = max(1, len(drawn) - confirmed), pb.PROPOSER_DRAFT_MODEL
        accepted = 0
        while accepted < len(drawn) and at + accepted < NUM_TOKENS and drawn[accepted] == reply[at + accepted]:
            accepted += 1
        draft_timing = pb.StepTiming(forward_us=DRAFT_MS * 1000, num_passes=1, num_rows=1, num_sessions=1)
        timing = pb.StepTiming(forward_us=TARGET_MS * 1000, num_passes=1, num_rows=len(drawn) + 1, num_sessions=1)
        made = Proposal(0, proposer, drawn, [draft_timing] * passes, complete=True, asked=decision.speculates)
        verified = pb.VerifyResponse(num_accepted=accepted, timing=timing)
        adaptive_k.learn(made, passes * DRAFT_MS / 1000, verified, TARGET_MS / 1000)
        lookups.commit(reply[at : at + accepted + 1])
        at, ms = at + accepted + 1, ms + TARGET_MS + passes * DRAFT_MS
    return at * 1000 / ms


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.95])
def test_as_fast_as_the_better_of_both(share: float, rate: float) -> None:
    """Claim: from an edit to an open text, both together have 0.95 of the speed of the better one, or more."""
    asked: list[tuple[int | None, int | None]] = [(None, 0), (0, None), (None, None)]
    model, lookup, both = (tokens_per_second(k, lookups, share, rate) for k, lookups in asked)
    assert both > 0.95 * max(model, lookup), (model, lookup, both)
