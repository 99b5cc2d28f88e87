"""The numbers that steer k and are set by hand, not measured."""

from dataclasses import dataclass

from gateway.clients.draft.pace import CATCH_UP_TOKENS


@dataclass(frozen=True)
class Tuning:
    """When to try, keep and give up speculation. A gain is an expected speed, as a multiple of plain decoding's."""

    expected_acceptance: float = 0.8
    """The acceptance rate to assume until drafts were seen."""
    expected_weight: float = 6.0
    """How many draft tokens that rate, or one learned from other sessions, counts for."""
    session_memory: int = 20
    """Over how many past drafts a session's acceptance is estimated."""
    gateway_memory: int = 100
    """Over how many past drafts the acceptance of all sessions is estimated."""

    begin_gain: float = 1.05
    """The gain above which a session that is alone begins to speculate."""
    end_gain: float = 0.97
    """The gain above which it goes on."""
    all_begin_gain: float = 1.2
    """The gain above which all sessions begin: the draft must first prefill the prompts, at worst on the same cores."""
    all_end_gain: float = 1.0
    """The gain above which all sessions go on."""
    beside_plain_gain: float = 1.3
    """The gain above which a session speculates beside others that do not."""
    beside_speculative_gain: float = 0.85
    """The gain above which a session goes on beside others that speculate."""
    own_k_gain: float = 1.15
    """How many times faster than the k of all sessions a session's own k must be to be preferred."""

    break_even_share: float = 0.75
    """How sure a draft must be to go on, as a share of break-even, until drafts that ended early were seen."""
    session_step: float = 0.4
    """How fast a session learns that share."""
    gateway_step: float = 0.1
    """How fast all sessions together learn it."""

    probe_share: float = 1 / 64
    """The share of time spent on trying what does not seem to pay."""
    certain_gain: float = 1.5
    """The gain above which plain decoding is tried less often."""
    certain_probe_share: float = 1 / 256
    """The share of time then."""
    probe_rounds: int = 2
    """How many rounds each session tries it for."""
    probe_lookup_tokens: int = 4
    """How many tokens are looked up then."""

    cost_memory: int = 8
    """How many measurements the median of a cost covers."""
    row_classes_per_octave: int = 6
    """How many classes passes fall into from n rows to 2n; above 12 rows, the passes of a class are nearly equal."""
    max_draft_rows: int = 2
    """The most rows per session in a draft's pass that is not a prefill: the last draft token and the bonus token."""
    first_draft_cost: float = 1 / 4
    """Until measured, the assumed cost of a draft token, as a share of a target's pass for as many sessions."""
    catch_up_tokens: int = CATCH_UP_TOKENS
    """From this many new tokens the draft model is catching up, and its time says nothing about other rounds."""


TUNING = Tuning()
