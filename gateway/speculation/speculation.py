"""What the sessions of a gateway share about speculation."""

from collections.abc import Sequence

from gateway.speculation.acceptance_estimate import AcceptanceEstimate
from gateway.speculation.pass_costs import PassCosts
from gateway.speculation.probe import Probe
from gateway.speculation.round_costs import RoundCosts
from gateway.speculation.sureness import Sureness
from gateway.speculation.tuning import TUNING
from shared.cost_model import CostModel
from shared.pb import specdec_pb2 as pb


class Speculation:
    """What all sessions have shown about speculation: its costs and its acceptance."""

    def __init__(self, max_k: int, max_sessions: int, pass_costs: Sequence[pb.PassCost] = ()) -> None:
        """Choose k from 0 to max_k, which is at least 1; the target decodes `max_sessions` at once, at these costs."""
        self.max_k = max_k
        self.costs = RoundCosts(max_sessions, PassCosts(pass_costs))
        self.probe = Probe()
        self.model_acceptance = AcceptanceEstimate(max_k, TUNING.gateway_memory, TUNING.expected_acceptance)
        self.lookup_acceptance = AcceptanceEstimate(max_k, TUNING.gateway_memory, TUNING.expected_acceptance)
        self.sureness = Sureness(TUNING.break_even_share, TUNING.gateway_step)
        self._pays = False

    def best_k(self, model: CostModel) -> tuple[int, bool]:
        """Return the best k above 0 if all sessions take the same, and whether it pays."""
        k, gain = best_gain(model.tokens_per_second(self.model_acceptance.rates))
        enough = TUNING.all_end_gain if self._pays else TUNING.all_begin_gain
        self._pays = gain / self.costs.speculation_overhead > enough
        return k, self._pays


def best_gain(speeds: Sequence[float]) -> tuple[int, float]:
    """Return the best k above 0, and its speed as a multiple of plain decoding's. speeds: by k, from 0."""
    k = max(range(1, len(speeds)), key=lambda k: speeds[k])
    return k, speeds[k] / speeds[0]
