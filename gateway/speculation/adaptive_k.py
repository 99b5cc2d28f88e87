"""How many draft tokens a session asks for."""

from collections.abc import Sequence
from dataclasses import replace

from gateway.clients.proposal import LOOKUPS, Proposal
from gateway.speculation.acceptance_estimate import AcceptanceEstimate
from gateway.speculation.pass_costs import PassCosts
from gateway.speculation.probe import Probe
from gateway.speculation.round_costs import RoundCosts
from shared.cost_model import CostModel
from shared.pb import specdec_pb2 as pb

FIRST_RATE = 0.8  # of acceptance, while nothing is known
TRIED_LOOKUP = 4  # tokens, where none seems to pay
BEGIN, END = 1.05, 0.97  # speculation that promises so many times the plain speed begins, or ends
# The same for all sessions together, whose prompts the draft has yet to prefill, on the same cores in the worst case.
TOGETHER_BEGIN, TOGETHER_END = 1.2, 1.0
BESIDE_PLAIN, BESIDE_SPECULATIVE = 1.3, 0.85  # the same for a session that would do other than all together
OWN_GAIN = 1.15  # that a k must promise over the one of all together
OWN_MEMORY, MEMORY = 20, 100  # drafts that a session's acceptance goes back, and that of all sessions


class Speculation:
    """What the sessions of this gateway know together about speculation: what it costs, and how it fares."""

    def __init__(self, max_k: int, max_sessions: int, target_costs: Sequence[pb.PassCost] = ()) -> None:
        """Choose k from 0 to max_k, 1 or more; the target decodes `max_sessions` at once, at these costs."""
        self.max_k = max_k
        self.costs = RoundCosts(max_sessions, PassCosts(target_costs))
        self.probe = Probe()
        self.model_acceptance = AcceptanceEstimate(max_k, MEMORY, FIRST_RATE)
        self.lookup_acceptance = AcceptanceEstimate(max_k, MEMORY, FIRST_RATE)
        self._pays = False

    def common(self, model: CostModel) -> tuple[int, bool]:
        """Return the best k but 0 for all sessions together, and whether it pays."""
        k, gain = best_gain(model.tokens_per_second(self.model_acceptance.rates))
        self._pays = gain / self.costs.slip > (TOGETHER_END if self._pays else TOGETHER_BEGIN)
        return k, self._pays


class AdaptiveK:
    """Chooses the k that commits most tokens a second, by the acceptance of this session and the costs of all.

    k = 0, where no k pays, is the plain path: the draft is not asked at all. Beside others a session does as is best
    for all together unless it has good reason, since sessions that draft differently wait for one another.
    """

    def __init__(
        self,
        speculation: Speculation,
        k: int | None,
        num_lookup_tokens: int | None,
        *,
        predicted: bool = False,
        takes_turns: bool = False,
    ) -> None:
        """Begin with what is known of other sessions. A number that is given is kept to; None is adapted.

        A draft that takes turns with the target is asked from the second round on: two prefills at once on the same
        cores take longer than one after the other, and the first token would have to wait for both.
        """
        self._all = speculation
        self._fixed = k, num_lookup_tokens
        self._model = AcceptanceEstimate(speculation.max_k, OWN_MEMORY, speculation.model_acceptance)
        # What is looked up in a prediction fares better than what is looked up in the text.
        expected = FIRST_RATE if predicted else speculation.lookup_acceptance
        self._lookup = AcceptanceEstimate(speculation.max_k, OWN_MEMORY, expected)
        self._pays = False
        self._takes_turns = takes_turns
        self._begun = False
        self._chosen = 0, 0
        self._k = self._num_lookup_tokens = 0
        self._costs: CostModel | None = None  # as they were known when the round began

    def next(self, left: int, behind: int) -> tuple[int, int]:
        """Return how many tokens to ask of the draft model in the next round, and how many to look up, at most.

        left: how many tokens may be committed yet, of which the round itself commits one.
        behind: how many committed ones the draft model does not know.
        """
        numbers = self._adapted(left, behind) if None in self._fixed else (0, 0)
        self._k, self._num_lookup_tokens = (min(number, left - 1) for number in self._kept(*numbers))
        return self._k, self._num_lookup_tokens

    def learn(
        self, proposal: Proposal, proposing_seconds: float, verified: pb.VerifyResponse, verifying_seconds: float
    ) -> None:
        """Take up the round, and what its two halves took."""
        self._all.costs.add(proposal, proposing_seconds, verified.timing, verifying_seconds)
        seconds = proposing_seconds + verifying_seconds
        if None in self._fixed:
            as_chosen = any((self._k, self._num_lookup_tokens)) == any(self._chosen)
            self._all.probe.spend(seconds, as_chosen=as_chosen)
        tells_costs = (proposal.tells_costs or not proposal.asked) and verified.timing.num_passes <= 1
        if self._begun and self._costs and proposal.proposer not in LOOKUPS and tells_costs:
            expected = self._costs.round_seconds(min(len(proposal.token_ids), self._all.max_k))
            self._all.costs.compare(expected, seconds, speculative=proposal.asked)
        self._begun = True  # the first round, of the prompt, is like no other
        if not proposal.asked:
            return
        # Draft tokens that did not come were not accepted either.
        if proposal.proposer in LOOKUPS or not self._k:
            estimates, num_drafted = (self._lookup, self._all.lookup_acceptance), len(proposal.token_ids) or 1
        else:
            estimates, num_drafted = (self._model, self._all.model_acceptance), self._k
        for estimate in estimates:
            estimate.add(num_drafted, verified.num_accepted)

    def _kept(self, k: int, num_lookup_tokens: int) -> tuple[int, int]:
        fixed_k, fixed_lookup = self._fixed
        return k if fixed_k is None else fixed_k, num_lookup_tokens if fixed_lookup is None else fixed_lookup

    def _adapted(self, left: int, behind: int) -> tuple[int, int]:
        """Return the best numbers, or what is to be tried out in their place."""
        if not self._all.costs.target.known or (self._takes_turns and not self._begun):
            self._chosen = self._kept(0, 0)
            return self._chosen
        self._costs = costs = self._all.costs.model(self._all.max_k, takes_turns=self._takes_turns)
        catch_up_seconds = self._all.costs.catch_up_seconds(behind) if self._fixed[0] is None else 0.0
        k, self._pays = self._best_k(costs, catch_up_seconds / left)
        lookups = replace(costs, draft_token_seconds=0.0).tokens_per_second(self._lookup.rates)
        num_lookup_tokens, gain = best_gain(lookups)
        num_lookup_tokens = num_lookup_tokens if gain / self._all.costs.slip > 1 else 0
        self._chosen = self._kept(k if self._pays else 0, num_lookup_tokens)
        if catch_up_seconds > left * costs.round_seconds(0):  # not even a perfect draft could make up for it
            return self._chosen
        if self._all.probe.decide(any(self._chosen), self._all.costs.num_sessions, catch_up_seconds):
            return self._chosen if any(self._chosen) else (k, min(TRIED_LOOKUP, self._all.max_k))
        return 0, 0

    def _best_k(self, costs: CostModel, catch_up_seconds: float) -> tuple[int, bool]:
        """Return the best k but 0, and whether it pays, given what it takes to catch up for each token that is left."""
        speeds = costs.tokens_per_second(self._model.rates)
        k, gain = best_gain(speeds)
        gain /= self._all.costs.slip * (1 + catch_up_seconds * speeds[k])
        if self._all.costs.num_sessions == 1:
            return k, gain > (END if self._pays else BEGIN)
        common_k, all_speculate = self._all.common(costs)
        k = k if speeds[k] > OWN_GAIN * speeds[common_k] else common_k
        stay = BESIDE_SPECULATIVE if self._pays else BEGIN
        return k, gain > (stay if all_speculate else BESIDE_PLAIN)


def best_gain(speeds: Sequence[float]) -> tuple[int, float]:
    """Return the best k but 0, and its speed as a multiple of the plain one. speeds: by k."""
    k = max(range(1, len(speeds)), key=lambda k: speeds[k])
    return k, speeds[k] / speeds[0]
