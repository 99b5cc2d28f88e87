"""Numbers that a service sends steer speculation and nothing else, however wrong they are."""

from pathlib import Path
from typing import Any

import pytest
from adversary import Adversary, serve
from hypothesis import given, settings
from hypothesis import strategies as st
from services import StartService, decoder

from gateway.clients.draft.proposal import Proposal
from gateway.rounds.decoder import Decoder
from gateway.rounds.round_time import RoundTime
from gateway.speculation.adaptive_k import AdaptiveK
from gateway.speculation.speculation import Speculation
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

NUMBERS = st.sampled_from([0, 1, 2, -1, 7, 1000, 10**6, -(10**6), 2**31 - 1, -(2**31)])
TIMINGS: st.SearchStrategy[pb.StepTiming] = st.builds(
    pb.StepTiming, **{field.name: NUMBERS for field in pb.StepTiming.DESCRIPTOR.fields}
)
COSTS = st.builds(pb.PassCost, num_rows=NUMBERS, forward_us=NUMBERS)
PROPOSALS = st.builds(
    Proposal,
    round=st.just(0),
    proposer=st.sampled_from(list(pb.Proposer.values())),
    token_ids=st.lists(st.just(1), max_size=31),
    timings=st.lists(TIMINGS, max_size=3),
    asked=st.booleans(),
    num_new=st.sampled_from([0, 1, 500]),
)
ROUNDS = st.tuples(PROPOSALS, TIMINGS, st.sampled_from([1e-9, 1e-3, 1.0]), st.integers(0, 31))
LIES = (
    pb.StepTiming(num_passes=1, forward_us=5),
    pb.StepTiming(num_passes=1, num_sessions=1, forward_us=-(10**9), queue_us=-5),
    pb.StepTiming(num_passes=1, num_sessions=2**31 - 1, num_rows=-1, forward_us=2**62),
    pb.StepTiming(num_passes=-1, num_sessions=-1, num_rows=1, sample_us=-(2**62)),
)


@given(
    costs=st.lists(COSTS, max_size=3), rounds=st.lists(ROUNDS, min_size=1, max_size=20), num_sessions=st.integers(1, 3)
)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_any_numbers_give_a_decision(costs: list[pb.PassCost], rounds: list[Any], num_sessions: int) -> None:
    """Claim: zeros, negative and huge times, rows and sessions raise nothing, and k stays within its bounds."""
    speculation = Speculation(12, 4, costs)
    speculation.costs.open = num_sessions
    sessions = [AdaptiveK(speculation, None, None) for _ in range(num_sessions)]
    for number, (proposal, timing, seconds, num_accepted) in enumerate(rounds):
        session = sessions[number % num_sessions]
        decision = session.next(left=100, behind=number)
        assert 0 <= decision.k <= 12
        assert 0 <= decision.num_lookup_tokens <= 12
        verified = pb.VerifyResponse(timing=timing, num_accepted=num_accepted)
        session.learn(proposal, seconds, verified, seconds)
        assert RoundTime.of(seconds, proposal.timings, seconds, [timing]).wire < float("inf")


async def tokens(decode: Decoder, k: int | None) -> list[int]:
    """Return the tokens of a reply."""
    params = SamplingParams(temperature=1, seed=3)
    return [one async for round_ in decode.decode([5, 6, 7], params, 60, k) for one in round_.token_ids]


@pytest.mark.parametrize("k", [4, None])
async def test_a_draft_that_lies_about_its_time(start: StartService, toy: tuple[Path, Path], k: int | None) -> None:
    """Claim: with a draft whose timings lack numbers or contradict themselves, each reply is the target's own."""
    target = start("target_service", model=toy[0], dtype="float32").address
    async with decoder(target, None) as plain:
        alone = await tokens(plain, 0)
        adversary = Adversary(plain.target, 2, *LIES)
    async with serve(adversary) as address, decoder(target, address) as decode:
        assert [await tokens(decode, k) for _ in range(4)] == [alone] * 4
    assert adversary.num_proposals > 0
