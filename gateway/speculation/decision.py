"""How many draft tokens a round asks for, and why."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a round has the number of draft tokens that it has."""

    REQUESTED = "requested"
    """The request or the settings give a number."""
    PAYS = "pays"
    """Speculation is expected to be faster."""
    DOES_NOT_PAY = "does_not_pay"
    """Plain decoding is expected to be faster."""
    CATCHING_UP = "catching_up"
    """The draft does not know the text, and too few tokens are left to make catching up worth its time."""
    PROBE = "probe"
    """Plain decoding is expected to be faster; speculation is tried, to check that."""
    PROBE_PLAIN = "probe_plain"
    """Speculation is expected to be faster; plain decoding is tried, to check that."""
    FIRST_ROUND = "first_round"
    """A draft on the target's cores is not asked while the target runs the prompt."""
    LAST_TOKEN = "last_token"  # noqa: S105
    """One token is left, which the target commits anyway."""
    NO_ROOM = "no_room"
    """The text fills the draft model's context, and nothing is looked up."""
    UNMEASURED = "unmeasured"
    """The cost of the target's passes is not known yet."""
    NO_DRAFT = "no_draft"
    """The draft service would have been asked, but is gone, full, or not done with an earlier round."""


@dataclass(frozen=True)
class Decision:
    """The most draft tokens that a round asks for, and why so many."""

    k: int
    """How many of the draft model."""
    num_lookup_tokens: int
    reason: Reason
    min_confidence: float = 0.0
    """How sure the draft model must be of all its draft tokens to go on with a further one."""
    min_lookup_acceptance: float = 0.0
    """Of how many looked-up tokens it must be expected that they are accepted, for the draft model not to be asked."""

    @property
    def speculates(self) -> bool:
        """Whether it asks for any."""
        return bool(self.k or self.num_lookup_tokens)
