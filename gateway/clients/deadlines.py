"""How long a session waits for the target."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Deadlines:
    """The longest waits for one answer of a replica, in seconds. A replica that exceeds one counts as lost."""

    reach_seconds: float = 10
    """For a replica to say who it is."""
    open_seconds: float = 60
    """For `opened`, beside what the session waits for a slot."""
    first_token_seconds: float = 300
    """For a sign of life in the first round, which waits for the prompt's prefill."""
    round_seconds: float = 60
    """For any other round."""
