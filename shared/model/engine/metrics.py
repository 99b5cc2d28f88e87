"""The Prometheus metrics of a service that serves a model."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.model.engine.slots import Slots

BUCKETS = [base * 10.0**exponent for exponent in range(-4, 2) for base in (1, 2, 5)]  # 0.1 milliseconds to 50 seconds


class EngineMeter:
    """Reports how full and how busy an engine is: what its service is scaled by."""

    def __init__(self, slots: Slots) -> None:
        """Begin at zero, in a registry of its own."""
        self.registry = registry = CollectorRegistry()
        gauges = (
            ("slots", "Slots of the KV cache.", lambda: slots.num_slots),
            ("slots_in_use", "Slots that hold a session.", lambda: slots.num_busy),
            ("sessions_waiting", "Sessions that wait for a slot.", lambda: slots.num_waiting),
        )
        for name, help_, value in gauges:
            Gauge(f"outrider_{name}", help_, registry=registry).set_function(value)
        self._busy = Counter("outrider_busy_seconds", "Time in forward passes and sampling.", registry=registry)
        queue_help = "What a verify, or a draft token, waited for its passes."
        self._queue = Histogram("outrider_queue_seconds", queue_help, buckets=BUCKETS, registry=registry)

    def count_busy(self, seconds: float) -> None:
        """Count time in a forward pass or its sampling."""
        self._busy.inc(seconds)

    def count_wait(self, seconds: float) -> None:
        """Count how long a verify or a draft token waited."""
        self._queue.observe(seconds)
