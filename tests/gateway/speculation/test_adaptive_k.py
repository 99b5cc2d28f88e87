"""The k that sessions choose, in a fleet with a time of its own: thousands of rounds of known costs and acceptance."""

import random
import statistics

import pytest
from fleet import Cost, Fleet

from gateway.clients.draft.proposal import Proposal
from gateway.speculation.acceptance_estimate import AcceptanceEstimate
from gateway.speculation.adaptive_k import AdaptiveK
from gateway.speculation.decision import Decision, Reason
from gateway.speculation.pass_costs import PassCosts
from gateway.speculation.probe import Probe
from gateway.speculation.speculation import Speculation
from gateway.speculation.sureness import Sureness
from shared.cost_model import CostModel
from shared.model.profile import Profile
from shared.pb import specdec_pb2 as pb

SECONDS_WARM, SECONDS = 4.0, 12.0
MAX_K = 12


def profile(name: str) -> Cost:
    """Return the costs of a profile."""
    return Profile.load(name).seconds


def straight(first: float, each: float) -> Cost:
    """Return costs that grow by as much with each row."""
    return lambda num_rows: first + each * (num_rows - 1)


TRN2 = profile("trn2-qwen3-32b"), profile("trn2-qwen3-1.7b")
CPU = straight(0.15, 0.015), straight(0.025, 0.006)
ROWS = straight(0.03, 0.02), straight(0.004, 0.002)  # every row costs nearly what the first does


def speed(fleet: Fleet) -> float:
    """Return tokens a second once everything is known."""
    fleet.tokens_per_second(SECONDS_WARM)
    return fleet.tokens_per_second(SECONDS)


@pytest.mark.parametrize("rate", [0.6, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("costs", [TRN2, CPU], ids=["trn2", "cpu"])
def test_chooses_what_the_cost_model_says(costs: tuple[Cost, Cost], rate: float) -> None:
    """Alone, with true costs and acceptance, the model's best k; what is chosen is as fast as that to 7 %."""
    target, draft = costs
    model = CostModel(
        draft(1), [target(k + 1) for k in range(MAX_K + 1)], overhead_seconds=0.001, proposal_seconds=0.001
    )
    best = model.best_k(rate)
    assert best > 0
    fleet = Fleet(1, target, draft, [rate])
    assert speed(fleet) > 0.93 * speed(Fleet(1, target, draft, [rate], k=best))
    known = fleet.speculation.costs.model(MAX_K)
    assert known.tokens_per_second(rate) == pytest.approx(model.tokens_per_second(rate), rel=0.02)


@pytest.mark.parametrize("num_sessions", [1, 2, 8, 32])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("costs", [TRN2, CPU, ROWS], ids=["trn2", "cpu", "rows"])
def test_never_slower_than_plain(costs: tuple[Cost, Cost], rate: float, num_sessions: int) -> None:
    """At any load, whatever rows cost and however bad the draft is, at least 0.95 of plain decoding."""
    assert speed(Fleet(num_sessions, *costs, [rate])) > 0.95 * speed(Fleet(num_sessions, *costs, [rate], k=0))


@pytest.mark.parametrize(
    ("rate", "reasons"),
    [
        (0.0, {Reason.DOES_NOT_PAY, Reason.PROBE}),
        (0.5, {Reason.PAYS, Reason.PROBE_PLAIN}),
    ],
)
def test_each_decision_has_its_reason(rate: float, reasons: set[Reason]) -> None:
    """What is expected to pay, or not, is done, and seldom the opposite; k is 0 for the reasons that say so."""
    fleet = Fleet(1, *TRN2, [rate])
    speed(fleet)
    session = fleet.sessions[0]
    assert set(session.reasons[-len(session.reasons) // 2 :]) == reasons
    for k, reason in zip(session.ks, session.reasons, strict=True):
        assert (k > 0) is (reason in {Reason.PAYS, Reason.PROBE})


def test_reasons_of_what_is_not_weighed() -> None:
    """A number that is given, the last token, costs that are not known, and a draft that could not catch up."""
    pass_costs = [pb.PassCost(num_rows=rows, forward_us=45_000 * rows) for rows in (16, 1000)]
    known, unknown = Speculation(MAX_K, 8, pass_costs), Speculation(MAX_K, 8)
    assert AdaptiveK(unknown, 4, 0).next(100, 1) == Decision(4, 0, Reason.REQUESTED)
    assert AdaptiveK(known, 4, None).next(100, 1).reason is Reason.REQUESTED
    assert AdaptiveK(unknown, 0, 0).next(100, 1) == Decision(0, 0, Reason.REQUESTED)
    assert AdaptiveK(unknown, 4, 0).next(3, 1) == Decision(2, 0, Reason.REQUESTED)
    assert AdaptiveK(unknown, 4, 0).next(1, 1) == Decision(0, 0, Reason.LAST_TOKEN)
    assert AdaptiveK(unknown, 4, 0).next(100, 1, room=0) == Decision(0, 0, Reason.NO_ROOM)
    assert AdaptiveK(known, None, 0).next(100, 1, room=0) == Decision(0, 0, Reason.NO_ROOM)
    assert AdaptiveK(known, None, 0).next(100, 1, room=2).reason is Reason.PAYS
    assert AdaptiveK(known, 4, 3).next(100, 1, room=0) == Decision(0, 3, Reason.REQUESTED)
    assert AdaptiveK(unknown, None, None).next(100, 1, room=0) == Decision(0, 0, Reason.UNMEASURED)
    assert AdaptiveK(unknown, None, None).next(100, 1) == Decision(0, 0, Reason.UNMEASURED)
    assert AdaptiveK(known, None, 0).next(1000, 1000).reason is Reason.PAYS
    assert AdaptiveK(known, None, 0).next(10, 1000) == Decision(0, 0, Reason.CATCHING_UP)


def test_a_useless_draft_is_hardly_asked() -> None:
    """Where nothing is accepted the draft gets under 3 % of the rounds, and not none: it may get better."""
    fleet = Fleet(1, *TRN2, [0.0])
    speed(fleet)
    ks = fleet.sessions[0].ks[20:]
    assert 0 < sum(k > 0 for k in ks) < 0.03 * len(ks)


def test_a_draft_that_gets_better_is_found() -> None:
    """Sessions that decode plainly take up speculation when the text becomes one that the draft knows."""
    fleet = Fleet(4, *TRN2, [0.0])
    speed(fleet)
    for session in fleet.sessions:
        session.acceptance = [0.95]
    fleet.tokens_per_second(60)
    assert fleet.tokens_per_second(SECONDS) > 1.5 * speed(Fleet(4, *TRN2, [0.0], k=0))


def test_costs_are_those_of_all_together() -> None:
    """Where rows are what a pass costs, no session of 16 drafts, though each would gain by being the only one."""
    fleet = Fleet(16, *ROWS, [0.8])
    fleet.tokens_per_second(SECONDS_WARM * 4)
    ks = [k for session in fleet.sessions for k in session.ks[-20:]]
    assert sum(k > 0 for k in ks) < 0.2 * len(ks)


def test_what_cannot_pay_is_not_tried_first() -> None:
    """What the target says of its passes is enough to begin with: the first seconds are as fast as plain ones."""
    fleet = Fleet(8, *ROWS, [0.8])
    assert fleet.tokens_per_second(SECONDS_WARM) > 0.97 * Fleet(8, *ROWS, [0.8], k=0).tokens_per_second(SECONDS_WARM)
    assert not any(k for session in fleet.sessions for k in session.ks[:5])


def test_a_target_that_tells_no_costs_is_measured() -> None:
    """The first round is plain, and then the draft is tried."""
    fleet = Fleet(1, *TRN2, [0.9], tells_costs=False)
    fleet.tokens_per_second(SECONDS_WARM)
    ks = fleet.sessions[0].ks
    assert ks[0] == 0 < ks[1]
    assert speed(fleet) > 0.93 * speed(Fleet(1, *TRN2, [0.9]))


def test_a_first_proposal_that_is_late_does_not_end_speculation() -> None:
    """A draft that is still prefilling at the first deadline costs that round, and says nothing of those after it."""
    speculation = Speculation(MAX_K, 1, [pb.PassCost(num_rows=rows, forward_us=45_000) for rows in (1, 16)])
    adaptive = AdaptiveK(speculation, None, 0)
    assert adaptive.next(100, 1).k > 0
    verified = pb.VerifyResponse(timing=pb.StepTiming(forward_us=45_000, num_passes=1, num_rows=1))
    adaptive.learn(Proposal(0), 1.0, verified, 0.046)
    assert adaptive.next(100, 1).k > 0


def test_a_draft_that_takes_turns_is_asked_from_the_second_round_on() -> None:
    """The first token comes as early as in plain decoding, and no probe is paid for by that round."""
    speculation = Speculation(MAX_K, 1, [pb.PassCost(num_rows=rows, forward_us=45_000) for rows in (1, 16)])
    adaptive = AdaptiveK(speculation, None, 0, takes_turns=True)
    assert adaptive.next(100, 1) == Decision(0, 0, Reason.FIRST_ROUND)
    verified = pb.VerifyResponse(timing=pb.StepTiming(forward_us=45_000, num_passes=1, num_rows=1))
    adaptive.learn(Proposal(0, asked=False), 0.0, verified, 0.046)
    assert adaptive.next(99, 2).k > 0
    assert AdaptiveK(speculation, None, 0).next(100, 1).k > 0
    assert AdaptiveK(speculation, 4, 0, takes_turns=True).next(100, 1).k == 4  # but a k that is given is kept to


@pytest.mark.parametrize(("takes_turns", "asks"), [(True, False), (False, True)])
def test_what_a_draft_costs_beside_others(takes_turns: bool, asks: bool) -> None:  # noqa: FBT001 - parametrized
    """Seen with one session, a draft on the target's cores is taken to be no cheaper by the session for eight."""
    target = straight(0.15, 0.005)
    pass_costs = [pb.PassCost(num_rows=rows, forward_us=round(target(rows) * 1e6)) for rows in (1, 8, 32)]
    speculation = Speculation(MAX_K, 8, pass_costs)
    adaptive = AdaptiveK(speculation, None, 0, takes_turns=takes_turns)
    for _ in range(20):
        k = adaptive.next(100, 1).k
        drafted = [
            pb.StepTiming(forward_us=25_000 + 5_000 * (num_rows - 1), num_passes=1, num_rows=num_rows, num_sessions=1)
            for num_rows in [2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1][:k]
        ]
        proposal = Proposal(0, pb.PROPOSER_DRAFT_MODEL, [1] * k, drafted, asked=k > 0)
        verify_seconds = target(k + 1)
        timing = pb.StepTiming(forward_us=round(verify_seconds * 1e6), num_passes=1, num_rows=k + 1, num_sessions=1)
        adaptive.learn(proposal, 0.025 * k, pb.VerifyResponse(num_accepted=k, timing=timing), verify_seconds)
    assert k > 0  # alone it pays
    speculation.costs.open = 8
    assert (adaptive.next(100, 1).k > 0) is asks


def test_a_late_draft_does_not_look_cheap() -> None:
    """What catching up takes is known from what came, and at least what was waited for what did not come."""
    speculation = Speculation(MAX_K, 32, [pb.PassCost(num_rows=1, forward_us=45_000)])
    costs, timing = speculation.costs, pb.StepTiming(forward_us=45_000, num_passes=1, num_rows=1, num_sessions=1)
    drafted = [pb.StepTiming(forward_us=800_000, num_passes=2, num_rows=100, num_sessions=1)]
    costs.add(Proposal(0, token_ids=[1], timings=drafted, num_new=100), 0.8, timing, 0.05)
    assert costs.catch_up_seconds(100) == pytest.approx(0.8)
    costs.open = 32
    for _ in range(20):
        costs.add(Proposal(0, num_new=100), 1.0, timing, 0.05)
    assert costs.catch_up_seconds(100) == pytest.approx(32 * 0.8)
    costs.open = 1
    for _ in range(20):
        costs.add(Proposal(0, num_new=100), 1.0, timing, 0.05)
    assert costs.catch_up_seconds(100) == pytest.approx(1.0)


def test_a_draft_that_compiles_a_grammar_is_thought_neither_slow_nor_bad() -> None:
    """Of what did not come meanwhile nothing is learned."""
    fleet = Fleet(1, *CPU, [0.8])
    speed(fleet)
    speculation, session = fleet.speculation, fleet.sessions[0].adaptive_k
    known = speculation.costs.catch_up_seconds(100), speculation.model_acceptance.rates
    assert session.next(1000, 100).k > 0
    session.learn(Proposal(0, num_new=100, compiles=True), 1.0, pb.VerifyResponse(), 0.15)
    assert (speculation.costs.catch_up_seconds(100), speculation.model_acceptance.rates) == known


def test_a_further_token_must_be_likely_enough() -> None:
    """An adapted k tells the draft from where on a token costs more than it brings; a given k is kept to."""
    target, draft = CPU
    adapted, given = (Fleet(1, target, draft, [0.8], k=k) for k in (None, 4))
    for fleet in (adapted, given):
        speed(fleet)
    decision = adapted.sessions[0].adaptive_k.next(1000, 1)
    assert decision.k > 0
    break_even = (0.025 + 0.015) * speed(adapted)  # the time of a token, in which so many are committed
    assert 0.5 * break_even < decision.min_confidence < break_even
    assert given.sessions[0].adaptive_k.next(1000, 1).min_confidence == 0


def test_forced_tokens_do_not_make_a_guess_worth_less() -> None:
    """Those that come beside guesses, at no cost, change neither how many are asked for nor how sure they must be."""
    decisions = []
    for forced in (set[int](), {0, 1, 2}):
        target, draft = CPU
        fleet = Fleet(1, target, draft, [0.8])
        speed(fleet)
        session = AdaptiveK(fleet.speculation, None, None)
        for _ in range(20):
            session.next(1000, 1)
            proposal = Proposal(0, pb.PROPOSER_DRAFT_MODEL, [1] * (4 + len(forced)), complete=True, forced=forced)
            verified = pb.VerifyResponse(num_accepted=3 + len(forced))
            session.learn(proposal, 4 * draft(1), verified, target(5))
        decisions.append(session.next(1000, 1))
    assert decisions[0].k > 1
    assert decisions[0] == decisions[1]


@pytest.mark.parametrize("complete", [True, False])
def test_only_what_is_late_counts_as_not_accepted(complete: bool) -> None:  # noqa: FBT001 - a case
    """A draft that ends its proposal where it is unsure is not thought worse for that."""
    speculation = Speculation(MAX_K, 1, [pb.PassCost(num_rows=1, forward_us=1)])
    session = AdaptiveK(speculation, 8, 0)
    for _ in range(100):
        session.next(1000, 1)
        proposal = Proposal(0, pb.PROPOSER_DRAFT_MODEL, token_ids=[1, 2], complete=complete)
        session.learn(proposal, 0.1, pb.VerifyResponse(num_accepted=2), 0.1)
    assert (speculation.model_acceptance.rates[2] > 0.5) is complete


def test_what_comes_too_late_is_not_tried() -> None:
    """A probe is not spent on a session that would be at its end before the draft has caught up."""
    target = ROWS[0]
    pass_costs = [pb.PassCost(num_rows=rows, forward_us=round(target(rows) * 1e6)) for rows in (1, 8, 32)]
    speculation = Speculation(MAX_K, 1, pass_costs)
    speculation.probe.spend(1e6, as_chosen=True)
    speculation.probe.spend(0.03, as_chosen=True)
    late, early = AdaptiveK(speculation, None, 0), AdaptiveK(speculation, None, 0)
    assert not any(late.next(10, 1000).k for _ in range(10))
    assert any(early.next(1000, 100).k for _ in range(10))


def test_a_probe_does_not_draw_in_who_is_far_behind() -> None:
    """A session that the draft knows begins a probe; one whose prompt it has yet to prefill stays out of it."""
    probe = Probe()
    probe.spend(640, as_chosen=True)
    probe.spend(0.1, as_chosen=True)  # 10 s are earned
    while not probe.decide(2, 0.0, chosen=False):
        pass  # the first probe is of plain decoding, which was chosen
    assert not probe.decide(2, 20.0, chosen=False)
    assert probe.decide(2, 0.0, chosen=False)


def test_far_from_the_opposite_it_is_tried_less() -> None:
    """A quarter as often, where the gain is large."""
    tried = []
    for certain in (False, True):
        probe, count = Probe(), 0
        for _ in range(10_000):
            speculates = probe.decide(1, 0.0, chosen=True)
            probe.spend(0.05, as_chosen=speculates, certain=certain)
            count += not speculates
        tried.append(count)
    assert 0 < 3 * tried[1] < tried[0] < 5 * tried[1]


def test_a_share_settles_where_a_further_token_just_pays() -> None:
    """Whatever a draft says of itself: those that end early are accepted as often as they may be."""
    rng = random.Random(0)
    for honest in (0.6, 1.0, 2.0):
        sureness, shares = Sureness(0.75, 0.1), []
        for _ in range(4000):
            sureness.ended_early(0.5, accepted=rng.random() < honest * sureness.share * 0.6)
            shares.append(sureness.share)
        assert statistics.mean(shares[1000:]) == pytest.approx(0.5 / 0.6 / honest, rel=0.1)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_draft_that_ended_too_early_may_be_less_sure(accepted: bool) -> None:  # noqa: FBT001 - a case
    """In its session, and a little in those that begin later."""
    target, draft = CPU
    fleet = Fleet(1, target, draft, [0.8])
    speed(fleet)
    session = fleet.sessions[0].adaptive_k
    first, later = session.next(1000, 1).min_confidence, AdaptiveK(fleet.speculation, None, 0).next(1000, 1)
    proposal = Proposal(0, pb.PROPOSER_DRAFT_MODEL, [1], complete=True)
    for _ in range(3):
        session.learn(proposal, 0.1, pb.VerifyResponse(num_accepted=int(accepted)), 0.1)
    assert (session.next(1000, 1).min_confidence < 0.8 * first) is accepted
    assert (AdaptiveK(fleet.speculation, None, 0).next(1000, 1).min_confidence < later.min_confidence) is accepted
    session._costs = CostModel(0.5, [0.1] * (MAX_K + 1))  # whatever a token costs
    for _ in range(100):
        session._sureness.ended_early(1.0, accepted=accepted)
    assert 0 < session._min_confidence(1) <= 1


@pytest.mark.parametrize(
    ("proposal", "reason"),
    [
        (Proposal(0, pb.PROPOSER_DRAFT_MODEL, [1], complete=True, num_asked=1), 0),
        (Proposal(0, pb.PROPOSER_DRAFT_MODEL, [1], complete=True), pb.FINISH_REASON_STOP),
        (Proposal(0, pb.PROPOSER_DRAFT_MODEL, [1], complete=False), 0),
    ],
    ids=["no more was asked for", "a stop token", "late"],
)
def test_what_ended_for_another_reason_says_nothing_of_how_sure_a_draft_is(
    proposal: Proposal, reason: pb.FinishReason.ValueType
) -> None:
    """A draft with a smaller limit than the target's, one that said the last word, one that was too slow."""
    fleet = Fleet(1, *CPU, [0.8])
    speed(fleet)
    session, share = fleet.sessions[0].adaptive_k, fleet.speculation.sureness.share
    assert session.next(1000, 1).k > 1
    session.learn(proposal, 0.1, pb.VerifyResponse(num_accepted=1, finish_reason=reason), 0.1)
    assert fleet.speculation.sureness.share == share


def test_acceptance_by_position() -> None:
    """The estimate of a position is that of its own drafts once there are many, and the common one before."""
    everyone = AcceptanceEstimate(4, 100, 0.8)
    assert everyone.rates == pytest.approx([0.8] * 4)
    for _ in range(300):
        everyone.add(3, 1)  # the first accepted, the second not, the third never reached
    assert everyone.rates[0] > 0.95
    assert everyone.rates[1] < 0.05
    assert 0.4 < everyone.rates[2] < 0.6
    assert AcceptanceEstimate(4, 20, everyone).rate == pytest.approx(everyone.rate)


def test_pass_costs_between_and_beyond_what_was_measured() -> None:
    """Costs lie on lines through what was measured; one slow pass among several changes nothing."""
    costs = PassCosts()
    assert costs.seconds([3]) == [0.0]
    for num_rows, seconds in ((1, 1.0), (1, 9.0), (1, 0.9), (1, 1.1), (1, 1.0), (5, 2.0), (5, 2.0)):
        costs.add(num_rows, seconds)
    assert costs.seconds([1, 3, 5, 9]) == pytest.approx([1.0, 1.5, 2.0, 3.0])


def test_a_draft_that_is_far_behind_is_not_asked_for_a_few_tokens() -> None:
    """What the draft has to catch up with is paid for by the tokens that are left."""
    speculation = Speculation(MAX_K, 8, [pb.PassCost(num_rows=rows, forward_us=45_000 * rows) for rows in (16, 1000)])
    assert AdaptiveK(speculation, None, 0).next(1000, 1000).k > 0
    assert AdaptiveK(speculation, None, 0).next(10, 1000).k == 0
    assert AdaptiveK(speculation, 4, 0).next(10, 1000).k == 4  # but a k that is given is kept to


def test_a_fixed_k_above_what_costs_are_known_for() -> None:
    """A setting may ask for more draft tokens than k adapts over, with lookups that adapt."""
    speculation = Speculation(MAX_K, 4)
    speculation.costs.target.add(1, 0.1)
    adaptive_k = AdaptiveK(speculation, MAX_K + 2, None)
    adaptive_k._costs = CostModel(  # as after a round
        0.02, [0.1] * (MAX_K + 1), overhead_seconds=0.001, proposal_seconds=0.001
    )
    assert adaptive_k.next(100, 0).k == MAX_K + 2
