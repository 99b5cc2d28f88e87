"""When to try again what does not seem to pay."""

from gateway.speculation.tuning import TUNING


class Probe:
    """Now and then lets all sessions try, for a few rounds, the opposite of what they chose: to speculate or not.

    All at once, since the cost of a round depends on what the others do: a session that speculates beside plain ones
    waits for their passes, and sessions that all speculate share a pass.
    """

    def __init__(self) -> None:
        """Begin with no time earned for a probe."""
        self._balance = 0.0  # seconds earned by rounds as chosen, less those spent on probes
        self._round_seconds = 0.0  # of the last round
        self._rounds_left = 0
        self._speculates = True

    def decide(self, num_sessions: int, catch_up_seconds: float, *, chosen: bool) -> bool:
        """Return whether a session speculates in its next round; `chosen` is its own choice.

        catch_up_seconds: how long all would wait for the draft to catch up now. A session that is further behind than
        the time left for the probe allows does not take part.
        """
        price = num_sessions * (TUNING.probe_rounds * self._round_seconds + catch_up_seconds)
        if not self._rounds_left and self._balance > price:
            self._speculates = not self._speculates
            self._rounds_left = TUNING.probe_rounds * num_sessions
        if not self._rounds_left or catch_up_seconds > self._balance:
            return chosen
        self._rounds_left -= 1
        return self._speculates

    def spend(self, seconds: float, *, as_chosen: bool, certain: bool = False) -> None:
        """Account for a round. certain: whether the choice is far from the opposite."""
        share = TUNING.certain_probe_share if certain else TUNING.probe_share
        self._balance += seconds * share if as_chosen else -seconds
        self._round_seconds = seconds
