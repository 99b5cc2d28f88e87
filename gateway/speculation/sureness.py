"""How sure of its tokens a draft model has to be to go on with a further one."""

from math import exp

_LEAST, _MOST = 0.1, 1.5


class Sureness:
    """A share of break-even: how far a draft model's own probability may be below what is accepted.

    A proposal that it ended early is right to have ended if its tokens are accepted no more often than a further one
    must be to pay. With each, the share takes a step to where both are equal (Robbins, Monro 1951).
    """

    def __init__(self, share: float, step: float) -> None:
        """Begin with a share. step: how much of a surprise, from -1 to 1, its logarithm takes in."""
        self.share = share
        self._step = step

    def ended_early(self, needed: float, *, accepted: bool) -> None:
        """Learn from a proposal that ended early. needed: how often such a one may be accepted, 0 to 1."""
        self.share = min(max(self.share * exp(self._step * (needed - accepted)), _LEAST), _MOST)
