"""When a pass waits for others."""

from shared.model.engine.batch_wait import BatchWait


def waiting(absences: list[float], shortest_pass: float) -> BatchWait:
    """Return what is known at time 0 of sessions that have just left, and stayed away for so long the last time."""
    known = BatchWait()
    for session, absence in enumerate(absences):
        known.leave(session, -1.0 - absence)
        known.come(session, -1.0)
        known.leave(session, 0.0)
    known.count_pass(shortest_pass)
    return known


def test_waits_for_many_that_come_soon() -> None:
    """Seven that come back within 2 ms share the pass of 100 ms that the first would start alone."""
    known = waiting([0.0005] + [0.002] * 7, shortest_pass=0.1)
    known.come(0, 0.0005)
    assert 0.0015 < known.seconds(1, 0.0005) < 0.03
    for session in range(1, 8):
        known.come(session, 0.002)
    assert known.seconds(8, 0.002) == 0


def test_does_not_wait_where_it_costs_more() -> None:
    """Seven do not wait 50 ms for one that spares a pass of 100 ms; one waits 50 ms for seven."""
    assert waiting([0.05], shortest_pass=0.1).seconds(7, 0.0) == 0
    assert 0.05 <= waiting([0.05] * 7, shortest_pass=0.1).seconds(1, 0.0) < 0.08


def test_does_not_wait_for_those_that_may_not_come() -> None:
    """A session is not waited for before it came back once, long after it should have, or once it has ended."""
    first = BatchWait()
    first.leave("new", 0.0)
    first.count_pass(0.1)
    assert first.seconds(1, 0.0) == 0
    known = waiting([0.01], shortest_pass=0.1)
    assert known.seconds(1, 0.0) > 0
    assert known.seconds(1, 0.04) == 0
    known.end(0)
    assert known.seconds(1, 0.0) == 0
