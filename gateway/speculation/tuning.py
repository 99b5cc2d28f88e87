"""The numbers that steer k and are set, not measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """How soon speculation is tried, kept and given up. A gain is an expected speed, as a multiple of the plain one."""

    expected_acceptance: float = 0.8
    """The acceptance rate while nothing is known."""
    expected_weight: float = 6.0
    """How many draft tokens that rate, or one learned elsewhere, counts for."""
    session_memory: int = 20
    """How many drafts a session's acceptance goes back."""
    gateway_memory: int = 100
    """How many drafts the acceptance of all sessions goes back."""

    begin_gain: float = 1.05
    """From which gain a session alone begins to speculate."""
    end_gain: float = 0.97
    """To which gain it goes on."""
    all_begin_gain: float = 1.2
    """From which gain all sessions begin: the draft has yet to prefill their prompts, at worst on the same cores."""
    all_end_gain: float = 1.0
    """To which gain all sessions go on."""
    beside_plain_gain: float = 1.3
    """From which gain a session speculates beside others that do not."""
    beside_speculative_gain: float = 0.85
    """To which gain a session goes on beside others that speculate."""
    own_k_gain: float = 1.15
    """How many times the speed of the k of all sessions a session's own k must promise to be preferred."""

    probe_share: float = 1 / 64
    """The share of the time that goes into trying what does not seem to pay."""
    probe_rounds: int = 2
    """How many rounds each session tries it for."""
    probe_lookup_tokens: int = 4
    """How many tokens are looked up then."""

    cost_memory: int = 8
    """How many measurements the median of a cost is of."""
    row_classes_per_octave: int = 6
    """Into how many classes passes of up to twice the rows fall; above 12 rows, those of a class are nearly equal."""
    max_draft_rows: int = 2
    """Up to how many rows of a session a draft's pass is no prefill: the last draft token and the bonus token."""
    first_draft_cost: float = 1 / 4
    """What a draft token costs while nothing is known, of what a target's pass of as many sessions does."""
    catch_up_tokens: int = 32
    """From how many new tokens on the draft model catches up, so that its time says nothing of other rounds."""


TUNING = Tuning()
