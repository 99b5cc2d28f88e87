"""When to try again what does not seem to pay."""

from gateway.speculation.tuning import TUNING


class Probe:
    """Lets all sessions try the opposite of what they chose, to speculate or not, for a few rounds, and seldom.

    All of them at once, since what a round costs depends on what the others do: one session that speculates beside
    others that do not waits for their passes, and many that do share one.
    """

    def __init__(self) -> None:
        """Begin without a claim to a probe."""
        self._balance = 0.0  # seconds earned by rounds as chosen, less those spent on others
        self._round_seconds = 0.0  # what the last round took
        self._rounds_left = 0
        self._speculates = True

    def decide(self, num_sessions: int, catch_up_seconds: float, *, chosen: bool) -> bool:
        """Return whether a session speculates in its next round; by itself it has chosen to, or not to.

        catch_up_seconds: for how long all would wait if the draft were told now what it does not know. A session that
        is further behind than the time that is left for the probe allows does not take part.
        """
        price = num_sessions * (TUNING.probe_rounds * self._round_seconds + catch_up_seconds)
        if not self._rounds_left and self._balance > price:
            self._speculates = not self._speculates
            self._rounds_left = TUNING.probe_rounds * num_sessions
        if not self._rounds_left or catch_up_seconds > self._balance:
            return chosen
        self._rounds_left -= 1
        return self._speculates

    def spend(self, seconds: float, *, as_chosen: bool) -> None:
        """Account for a round."""
        self._balance += seconds * TUNING.probe_share if as_chosen else -seconds
        self._round_seconds = seconds
