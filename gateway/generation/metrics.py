"""What Prometheus reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gateway.rounds.round import Round
from gateway.rounds.round_time import PARTS
from gateway.speculation.decision import Reason

BUCKETS = [base * 10.0**exponent for exponent in range(-5, 1) for base in (1, 2, 5)]  # 10 microseconds to 5 seconds


@dataclass(frozen=True)
class _Refusals(Collector):
    """A count that somebody else keeps."""

    num_refused: Callable[[], int]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the count."""
        help_ = "Streams let go since their replica of the target serves another model."
        yield CounterMetricFamily("outrider_targets_refused", help_, value=self.num_refused())


class Meter:
    """Counts the rounds of all requests. The names of speculation's counters, and their labels, are vLLM's."""

    def __init__(self, model_name: str, num_streams: Callable[[], int], num_refused: Callable[[], int]) -> None:
        """Begin at zero, in a registry of its own.

        `num_streams` returns how many sequences are being decoded, `num_refused` how many streams were given up so far
        because their replica of the target serves another model.
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, open files, processor time
        streams = Gauge("outrider_streams", "Sequences that are being decoded.", registry=self._registry)
        streams.set_function(num_streams)
        self._registry.register(_Refusals(num_refused))
        seconds = Histogram(
            "outrider_round_seconds", "Parts of a round's time.", ["part"], buckets=BUCKETS, registry=self._registry
        )
        self._seconds = {part: seconds.labels(part) for part in PARTS}
        self._model = {"model_name": model_name, "engine": "0"}
        self._drafts = self._counter("num_drafts", "Rounds that had draft tokens.").labels(**self._model)
        self._drafted = self._counter("num_draft_tokens", "Draft tokens.").labels(**self._model)
        self._accepted = self._counter("num_accepted_tokens", "Accepted draft tokens.").labels(**self._model)
        self._accepted_per_pos = self._counter(
            "num_accepted_tokens_per_pos", "Accepted draft tokens by their position in the draft.", "position"
        )
        rounds = Counter(
            "outrider_rounds",
            "Rounds by why they have the draft tokens that they have.",
            ["reason"],
            registry=self._registry,
        )
        self._rounds = {reason: rounds.labels(reason) for reason in Reason}
        self._forced = Counter("outrider_forced_tokens", "Tokens that a grammar forced.", registry=self._registry)
        self._proposed, self._proposed_accepted = (
            Counter(f"outrider_{name}", help_, ["proposer"], registry=self._registry)
            for name, help_ in (
                ("draft_tokens", "Draft tokens by their proposer."),
                ("accepted_tokens", "Accepted draft tokens by their proposer."),
            )
        )

    def count(self, round_: Round) -> None:
        """Count a round."""
        for part, seconds in self._seconds.items():
            seconds.observe(getattr(round_.time, part))
        if round_.reason:
            self._rounds[round_.reason].inc()
        self._drafts.inc(round_.num_drafted > 0)
        self._drafted.inc(round_.num_drafted)
        self._accepted.inc(round_.num_accepted)
        self._forced.inc(len(round_.forced))
        for name, (drafted, accepted) in round_.by_proposer().items():
            self._proposed.labels(name).inc(drafted)
            self._proposed_accepted.labels(name).inc(accepted)
        for position in range(round_.num_accepted):
            self._accepted_per_pos.labels(**self._model, position=position).inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"vllm:spec_decode_{name}", help_, ["model_name", "engine", *labels], registry=self._registry)
