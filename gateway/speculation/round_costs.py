"""The cost of rounds, as measured by all sessions of this gateway together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.clients.draft.proposal import LOOKUPS, Proposal
from gateway.speculation.pass_costs import PassCosts, RecentMedian
from gateway.speculation.tuning import TUNING
from shared.cost_model import CostModel
from shared.pb import specdec_pb2 as pb


class ByLoad(dict[int, RecentMedian]):
    """A median for each load; at any load it goes back equally many rounds of a session."""

    def __missing__(self, load: int) -> RecentMedian:
        """Begin a load."""
        self[load] = RecentMedian(TUNING.cost_memory << load)
        return self[load]


def catches_up(proposal: Proposal) -> bool:
    """Return whether the draft model ran many tokens that were new to it."""
    return proposal.num_new >= TUNING.catch_up_tokens


def tells_costs(proposal: Proposal) -> bool:
    """Return whether its time is typical: something came in time, and no prompt was prefilled for it."""
    prefills = catches_up(proposal) or any(timing.num_passes > 1 for timing in proposal.timings)
    return bool(proposal.timings) and not prefills


@dataclass
class RoundCosts:
    """Measured costs: of passes by their rows, and of the rest of a round by how many sessions there are.

    The target's own measurements come first, so that no session has to try what cannot pay.
    """

    max_sessions: int
    """How many sessions the target decodes at once; any more wait and cost nothing."""
    target: PassCosts
    open: int = 0
    _draft: PassCosts = field(default_factory=PassCosts)  # by sessions, each with the row of one token
    _catching_up: RecentMedian = field(default_factory=RecentMedian)  # seconds of the draft's passes for each new token
    _asking: ByLoad = field(default_factory=ByLoad)  # a proposal, less its passes
    _plain: ByLoad = field(default_factory=ByLoad)  # a verify, less its pass, k = 0
    _speculative: ByLoad = field(default_factory=ByLoad)  # the same, k > 0
    _plain_ratio: ByLoad = field(default_factory=ByLoad)  # a round's time over what the model predicts
    _speculative_ratio: ByLoad = field(default_factory=ByLoad)
    _models: dict[tuple[int, int, bool], CostModel] = field(default_factory=dict)  # of `_model`, since the last pass

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Count a session for the length of the block."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    @property
    def num_sessions(self) -> int:
        """How many sessions are being decoded."""
        return max(1, min(self.open, self.max_sessions))

    @property
    def _load(self) -> int:
        return self.num_sessions.bit_length()  # costs are nearly equal from one power of two to the next

    def add(
        self, proposal: Proposal, proposing_seconds: float, verified: pb.StepTiming, verifying_seconds: float
    ) -> None:
        """Record a round. Waiting for a prefill, or for draft tokens that did not come, tells nothing about rounds."""
        drafting_seconds, is_first = 0.0, True
        for timing in proposal.timings:
            seconds = timing.forward_us / 1e6
            if timing.num_passes == 1 and timing.num_rows <= TUNING.max_draft_rows * timing.num_sessions:
                believed = self._draft_token_seconds(timing.num_sessions)
                if not is_first or seconds < believed:
                    self._draft.add(timing.num_sessions, seconds)
                else:  # what the first pass takes longer, whose threads and weights are cold, is the proposal's
                    seconds = believed
            is_first = is_first and not timing.num_passes
            drafting_seconds += seconds + timing.queue_us / 1e6
        if catches_up(proposal) and proposal.proposer not in LOOKUPS and not proposal.compiles:
            if proposal.timings:
                self._catching_up.add(max(proposal.timings[0].forward_us, 0) / 1e6 / proposal.num_new)
            elif proposing_seconds > self.catch_up_seconds(proposal.num_new):  # what came too late took even longer
                self._catching_up.add(proposing_seconds / self.num_sessions / proposal.num_new)
        if tells_costs(proposal):
            self._asking[self._load].add(proposing_seconds - drafting_seconds)
        if verified.num_passes == 1:
            forward_seconds = verified.forward_us / 1e6
            if self.target.add(verified.num_rows, forward_seconds):
                self._models.clear()
            waited = self._speculative if proposal.asked else self._plain
            waited[self._load].add(verifying_seconds - forward_seconds - verified.queue_us / 1e6)

    def catch_up_seconds(self, num_tokens: int) -> float:
        """Return how long the draft is busy catching up if every session is `num_tokens` ahead of it."""
        if self._catching_up.count:
            return self.num_sessions * num_tokens * self._catching_up.value
        return self.num_sessions * self.target.seconds([num_tokens])[0] * TUNING.first_draft_cost

    def compare(self, expected_seconds: float, seconds: float, *, speculative: bool) -> None:
        """Record how long a round took beside what the model predicted."""
        ratio = self._speculative_ratio if speculative else self._plain_ratio
        ratio[self._load].add(seconds / expected_seconds)

    @property
    def speculation_overhead(self) -> float:
        """How far speculative rounds exceed the model's prediction, relative to plain rounds; at least 1.

        The model does not include waiting for the passes of other sessions, nor the draft's work for others.
        """
        speculative, plain = self._speculative_ratio[self._load], self._plain_ratio[self._load]
        return max(speculative.value / plain.value, 1.0) if speculative.count and plain.count else 1.0

    def model(self, max_k: int, *, takes_turns: bool = False) -> CostModel:
        """Return what rounds cost at this load if all sessions take the same k; the target's costs must be known.

        A session that chose k by the cost of its own rows alone would make the others pay: where the rows are what a
        pass costs, each session would gain by drafting, and all together would lose. The sessions of a pass, which all
        ask when it ends, get the same answer.

        takes_turns: whether the draft runs on the target's cores, where batching sessions is expected to save nothing.
        """
        known = self.num_sessions, max_k, takes_turns
        if known not in self._models:
            self._models[known] = self._model(self.num_sessions, max_k, takes_turns=takes_turns)
        return self._models[known]

    def _draft_token_seconds(self, num_sessions: int, *, takes_turns: bool = False) -> float:
        [measured] = self._draft.seconds([num_sessions], from_zero=takes_turns)
        return measured or self.target.seconds([num_sessions])[0] * TUNING.first_draft_cost

    def _model(self, n: int, max_k: int, *, takes_turns: bool) -> CostModel:
        load = self._load
        medians = [waited[load] for waited in (self._plain, self._speculative)]
        known = [median.value for median in medians if median.count] or [0.0]
        plain, speculative = known[0], known[-1]  # if only one is known, it stands for both
        verify_seconds = self.target.seconds([n * (k + 1) for k in range(max_k + 1)])
        return CostModel(
            draft_token_seconds=self._draft_token_seconds(n, takes_turns=takes_turns),
            verify_seconds=verify_seconds,
            overhead_seconds=plain,
            proposal_seconds=self._asking[load].value + speculative - plain,
        )
