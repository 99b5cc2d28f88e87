"""Chooses how many draft tokens a session asks for."""

from dataclasses import replace

from gateway.clients.draft.proposal import LOOKUPS, Proposal
from gateway.speculation.acceptance_estimate import AcceptanceEstimate
from gateway.speculation.decision import Decision, Reason
from gateway.speculation.round_costs import tells_costs
from gateway.speculation.speculation import Speculation, best_gain
from gateway.speculation.sureness import Sureness
from gateway.speculation.tuning import TUNING
from shared.cost_model import CostModel
from shared.pb import specdec_pb2 as pb


class AdaptiveK:
    """Chooses the k that commits most tokens a second, from this session's acceptance and all sessions' costs.

    Where no k pays, k = 0 is plain decoding: the draft is not asked at all. Beside others, a session does what is best
    for all of them unless it has good reason not to, since sessions that draft differently wait for one another.
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
        """Begin with what is known from other sessions. A given number is kept; None is adapted.

        Ask a draft that takes turns with the target only from the second round on: two prefills at once on the same
        cores take longer than one after the other, and the first token would have to wait for both.
        """
        self._all = speculation
        self._fixed = k, num_lookup_tokens
        self._model = AcceptanceEstimate(speculation.max_k, TUNING.session_memory, speculation.model_acceptance)
        # Tokens found in a prediction are accepted more often than tokens found in the text.
        expected = TUNING.expected_acceptance if predicted else speculation.lookup_acceptance
        self._lookup = AcceptanceEstimate(speculation.max_k, TUNING.session_memory, expected)
        self._sureness = Sureness(speculation.sureness.share, TUNING.session_step)
        self._needed = 1.0  # how likely a further token must be accepted to pay
        self._pays = self._certain = False
        self._takes_turns = takes_turns
        self._begun = False
        self._chosen = 0, 0  # the best numbers; the decision may be a probe
        self._decision = Decision(0, 0, Reason.UNMEASURED)
        self._costs: CostModel | None = None  # as known when the round began
        self._recent_tokens = self._recent_seconds = 0.0  # of its last rounds, old ones fading, without forced tokens

    def next(self, left: int, behind: int, room: int = 2**31) -> Decision:
        """Return the most tokens to ask of the draft model in the next round, and the most to look up.

        left: how many tokens may still be committed; one of them the round commits without a draft token.
        behind: how many committed tokens the draft model does not know.
        room: how many more tokens its context holds.
        """
        (k, num_lookup_tokens), reason = (0, 0), Reason.REQUESTED
        if None in self._fixed:
            (k, num_lookup_tokens), reason = self._adapted(left, behind)
        k, num_lookup_tokens = self._kept(k, num_lookup_tokens)
        if any(self._fixed):
            reason = Reason.REQUESTED
        if left == 1 and (k or num_lookup_tokens):
            reason = Reason.LAST_TOKEN
        elif k and not room:
            self._chosen = 0, self._chosen[1]
            reason = reason if num_lookup_tokens else Reason.NO_ROOM
        k, num_lookup_tokens = min(k, left - 1, room), min(num_lookup_tokens, left - 1)
        self._decision = Decision(
            k, num_lookup_tokens, reason, self._min_confidence(k), self._min_lookup_acceptance(k, num_lookup_tokens)
        )
        return self._decision

    def learn(
        self, proposal: Proposal, proposing_seconds: float, verified: pb.VerifyResponse, verifying_seconds: float
    ) -> None:
        """Learn from a round and from the time of its two halves."""
        self._all.costs.add(proposal, proposing_seconds, verified.timing, verifying_seconds)
        seconds = proposing_seconds + verifying_seconds
        if None in self._fixed:
            as_chosen = self._decision.speculates == any(self._chosen)
            self._all.probe.spend(seconds, as_chosen=as_chosen, certain=self._certain)
        is_typical = (
            (tells_costs(proposal) or not proposal.asked)
            and verified.timing.num_passes <= 1
            and not proposal.forced
            and not proposal.num_looked_up
        )
        if self._begun and self._costs and proposal.proposer not in LOOKUPS and is_typical:
            expected = self._costs.round_seconds(min(len(proposal.token_ids), self._all.max_k))
            self._all.costs.compare(expected, seconds, speculative=proposal.asked)
        if self._begun:
            keep = 1 - 1 / TUNING.session_memory
            self._recent_tokens = self._recent_tokens * keep + proposal.num_guessed(verified.num_accepted) + 1
            self._recent_seconds = self._recent_seconds * keep + seconds
        self._begun = True  # the first round runs the prompt and is not typical
        if not proposal.asked or (proposal.compiles and not proposal.complete):
            return
        num_drafted = proposal.num_guessed(len(proposal.token_ids)) if proposal.token_ids else 1
        estimates = self._model, self._all.model_acceptance
        if proposal.proposer in LOOKUPS or not self._decision.k:
            estimates = self._lookup, self._all.lookup_acceptance
        elif not proposal.complete:  # draft tokens that did not arrive in time count as not accepted
            num_drafted = self._decision.k
        for estimate in estimates:
            estimate.add(num_drafted, proposal.num_guessed(verified.num_accepted))
        if self._ended_early(proposal) and not verified.finish_reason:  # nobody goes on after a stop token
            needed = min(self._needed / self._model.rate, 1.0)  # the further token would have had to be accepted, too
            for sureness in (self._sureness, self._all.sureness):
                sureness.ended_early(needed, accepted=verified.num_accepted == len(proposal.token_ids))

    def _ended_early(self, proposal: Proposal) -> bool:
        """Return whether the draft model was not sure enough for as many tokens as it was asked for."""
        alone = proposal.complete and not proposal.forced and not proposal.num_looked_up
        asked = min(self._decision.k, proposal.num_asked)
        return alone and self._decision.min_confidence > 0 and 0 < len(proposal.token_ids) < asked

    def _kept(self, k: int, num_lookup_tokens: int) -> tuple[int, int]:
        fixed_k, fixed_lookup = self._fixed
        return k if fixed_k is None else fixed_k, num_lookup_tokens if fixed_lookup is None else fixed_lookup

    def _min_confidence(self, k: int) -> float:
        """Return how sure the draft must be of k tokens, if k is adapted, for a further one to be worth its time."""
        if self._fixed[0] is not None or not k or not self._costs:
            return 0.0
        k = min(k, self._all.max_k)
        speed = self._costs.tokens_per_second(self._model.rates)[k]
        self._needed = self._costs.break_even(self._worth(speed), k)
        return min(self._sureness.share * self._needed, 1.0)

    def _min_lookup_acceptance(self, k: int, num_lookup_tokens: int) -> float:
        """Return how many tokens of a lookup must be accepted for it to be no worse than k of the draft model."""
        if self._fixed[1] is not None or not k or not num_lookup_tokens or not self._costs:
            return 0.0
        k, num_lookup_tokens = min(k, self._all.max_k), min(num_lookup_tokens, self._all.max_k)  # costs are known for
        seconds = self._costs.round_seconds(k)
        saved_seconds = seconds - _looking_up(self._costs).round_seconds(num_lookup_tokens)
        speed = self._costs.tokens_per_second(self._model.rates)[k]
        return max(0.0, speed * seconds - 1 - self._worth(speed) * saved_seconds)

    def _worth_its_time(self, costs: CostModel, k: int) -> int:
        """Return how many of k tokens of the draft model bring what their time is worth, where lookups do, too."""
        speeds = costs.tokens_per_second(self._model.rates)
        worth = self._worth(speeds[k])
        return max(range(k + 1), key=lambda fewer: (speeds[fewer] - worth) * costs.round_seconds(fewer))

    def _worth(self, speed: float) -> float:
        """Return what a second is worth in tokens: those of this speed, or of the last rounds' if that is more.

        Where most tokens are looked up, the draft model takes the time of many of them.
        """
        return max(speed, self._recent_tokens / self._recent_seconds) if self._recent_seconds else speed

    def _adapted(self, left: int, behind: int) -> tuple[tuple[int, int], Reason]:
        """Return the best numbers, or those that a probe tries instead, and the reason."""
        self._chosen = self._kept(0, 0)
        if not self._all.costs.target.known:
            return self._chosen, Reason.UNMEASURED
        if self._takes_turns and not self._begun:
            return self._chosen, Reason.FIRST_ROUND
        self._costs = costs = self._all.costs.model(self._all.max_k, takes_turns=self._takes_turns)
        catch_up_seconds = self._all.costs.catch_up_seconds(behind) if self._fixed[0] is None else 0.0
        k, self._pays = self._best_k(costs, catch_up_seconds / left)
        num_lookup_tokens, gain = best_gain(_looking_up(costs).tokens_per_second(self._lookup.rates))
        num_lookup_tokens = num_lookup_tokens if gain / self._all.costs.speculation_overhead > 1 else 0
        if self._pays and self._fixed == (None, None):
            num_lookup_tokens = max(num_lookup_tokens, k)  # what is not sure saves the draft model some passes
            k = self._worth_its_time(costs, k)
        self._chosen = self._kept(k if self._pays else 0, num_lookup_tokens)
        pays = any(self._chosen)
        if catch_up_seconds > left * costs.round_seconds(0):  # not even a perfect draft could make up for it
            return self._chosen, Reason.PAYS if pays else Reason.CATCHING_UP
        if self._all.probe.decide(self._all.costs.num_sessions, catch_up_seconds, chosen=pays):
            if pays:
                return self._chosen, Reason.PAYS
            return (k, min(TUNING.probe_lookup_tokens, self._all.max_k)), Reason.PROBE
        return (0, 0), Reason.PROBE_PLAIN if pays else Reason.DOES_NOT_PAY

    def _best_k(self, costs: CostModel, catch_up_seconds: float) -> tuple[int, bool]:
        """Return the best k above 0, and whether it pays; `catch_up_seconds` is per token that is left."""
        speeds = costs.tokens_per_second(self._model.rates)
        k, gain = best_gain(speeds)
        gain /= self._all.costs.speculation_overhead * (1 + catch_up_seconds * speeds[k])
        self._certain = self._fixed[0] is None and gain > TUNING.certain_gain
        if self._all.costs.num_sessions == 1:
            return k, gain > (TUNING.end_gain if self._pays else TUNING.begin_gain)
        k_of_all, all_speculate = self._all.best_k(costs)
        k = k if speeds[k] > TUNING.own_k_gain * speeds[k_of_all] else k_of_all
        stay = TUNING.beside_speculative_gain if self._pays else TUNING.begin_gain
        return k, gain > (stay if all_speculate else TUNING.beside_plain_gain)


def _looking_up(costs: CostModel) -> CostModel:
    """Return the costs of rounds whose draft tokens are looked up."""
    return replace(costs, draft_token_seconds=0.0)
