"""How many draft tokens a round asks for, and why."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a round has the number of draft tokens that it has."""

    REQUESTED = "requested"
    """The request, or the settings, give a number."""
    PAYS = "pays"
    """Speculation is expected to be faster."""
    DOES_NOT_PAY = "does_not_pay"
    """Plain decoding is expected to be faster."""
    CATCHING_UP = "catching_up"
    """The draft does not know the text, and the tokens that are left would not make up for telling it."""
    PROBE = "probe"
    """Plain decoding is expected to be faster, which speculation is tried to find out."""
    PROBE_PLAIN = "probe_plain"
    """Speculation is expected to be faster, which plain decoding is tried to find out."""
    FIRST_ROUND = "first_round"
    """The prompt's round is not shared with a draft on the target's cores."""
    LAST_TOKEN = "last_token"  # noqa: S105
    """One token is left, which the target gives anyway."""
    UNMEASURED = "unmeasured"
    """Nothing is known of what the target's passes cost."""
    NO_DRAFT = "no_draft"
    """The draft service was to be asked, but is gone, full, or not done with an earlier round."""


@dataclass(frozen=True)
class Decision:
    """How many draft tokens a round asks for, at most, and why so many."""

    k: int
    """Of the draft model."""
    num_lookup_tokens: int
    reason: Reason

    @property
    def speculates(self) -> bool:
        """Whether it asks for any."""
        return bool(self.k or self.num_lookup_tokens)
