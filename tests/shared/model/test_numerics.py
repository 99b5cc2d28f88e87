"""A change of what computes is noticed: replicas of two releases must not pass for one when their bits differ."""

from shared.model.sources import COMPUTING, NUMERICS, sources_digest

SEEN = (4, "951e6afae1a8d5d9")


def test_who_changes_what_computes_thinks_of_its_version() -> None:
    """The modules that compute are as they were when NUMERICS was last thought about.

    If this fails: can the same request give other bits than before, on any processor? Then raise NUMERICS in
    shared/model/sources.py. In any case put the new pair here.
    """
    assert (NUMERICS, sources_digest(*COMPUTING)) == SEEN
