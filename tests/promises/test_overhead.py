"""Where a round's time goes and how drafts did: in the response and for Prometheus, over real processes."""

from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.generation.acceptance_counts import Acceptance
from gateway.rounds.round_time import PARTS, RoundTime
from shared.pb import specdec_pb2 as pb

Samples = dict[tuple[str, str], float]  # name, and the label that tells samples of one name apart


def test_a_round_is_its_parts() -> None:
    """Claim: time that the services do not report is wire; working ahead never accounts for more than the wait."""
    step = pb.StepTiming(queue_us=1000, forward_us=5000, sample_us=500)
    time = RoundTime.of(0.020, [step, step], 0.010, [step]).emitted(0.001)
    assert vars(time) == pytest.approx(
        {"draft": 0.010, "verify": 0.005, "queue": 0.003, "sample": 0.0015, "wire": 0.0105, "emit": 0.001}
    )
    assert (time.seconds, time.overhead) == pytest.approx((0.031, 0.016))
    ahead = RoundTime.of(0.0013, [step], 0, [])
    assert (ahead.draft, ahead.queue, ahead.wire) == pytest.approx((0.001, 0.0002, 0))
    assert RoundTime.of(0, [], 0.01, [step]).draft == 0


def test_acceptance_by_position() -> None:
    """Claim: a position counts as drafted if the draft reached it, and as accepted if acceptance did."""
    acceptance = Acceptance()
    for drafted, accepted in ((3, 3), (3, 1), (1, 0), (0, 0)):
        acceptance.count(drafted, accepted)
    metrics = acceptance.metrics()
    assert metrics["num_draft_tokens_per_pos"] == [3, 2, 2]
    assert metrics["num_accepted_tokens_per_pos"] == [2, 1, 1]
    assert metrics["acceptance_histogram"] == [1, 1, 0, 1]
    assert metrics["acceptance_histogram_by_draft_length"] == {"1": [1, 0], "3": [0, 1, 0, 1]}
    assert (metrics["num_drafts"], metrics["acceptance_rate"], metrics["mean_acceptance_length"]) == (
        3,
        4 / 7,
        1 + 4 / 3,
    )
    assert Acceptance().metrics()["acceptance_histogram"] == [0]


def scrape(url: str) -> Samples:
    """Read the gateway's metrics."""
    response = httpx.get(f"{url}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, sample.labels.get("part") or sample.labels.get("position") or ""): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def ask(url: str, k: int) -> dict[str, Any]:
    """Return what the response reports about its speculation."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(
            model="toy",
            messages=[{"role": "user", "content": "Count the horses."}],
            max_tokens=40,
            seed=5,
            extra_body={"speculative": {"enabled": k > 0, **({"k": k} if k else {}), "metrics": True}},
        )
    metrics: dict[str, Any] = (reply.model_extra or {})["metrics"]["speculative_decoding"]
    return metrics


def test_response_and_prometheus_agree(toy_url: str) -> None:
    """Claim: with real processes, the counters rise by what the response says, and every part takes time."""
    before = scrape(toy_url)
    metrics = ask(toy_url, k=3)
    after = scrape(toy_url)
    rise = {key: after[key] - before.get(key, 0) for key in after}
    prefix = "vllm:spec_decode_num"
    assert rise[f"{prefix}_drafts_total", ""] == metrics["num_drafts"] > 0
    assert rise[f"{prefix}_draft_tokens_total", ""] == metrics["num_draft_tokens"]
    assert rise[f"{prefix}_accepted_tokens_total", ""] == metrics["num_accepted_tokens"]
    per_pos = metrics["num_accepted_tokens_per_pos"]
    assert [rise.get((f"{prefix}_accepted_tokens_per_pos_total", str(pos)), 0) for pos in range(3)] == per_pos
    medians = metrics["round_p50_ms"]
    assert list(medians) == list(PARTS)
    assert min(medians.values()) > 0
    for part in PARTS:
        assert rise["outrider_round_seconds_count", part] >= metrics["num_drafts"]
        assert rise["outrider_round_seconds_sum", part] > 0


def test_plain_rounds_have_no_draft_time(toy_url: str) -> None:
    """Claim: without speculation nothing counts as drafted, and rounds report no time for drafting."""
    before = scrape(toy_url)
    metrics = ask(toy_url, k=0)
    after = scrape(toy_url)
    assert (metrics["num_drafts"], metrics["acceptance_histogram"], metrics["round_p50_ms"]["draft"]) == (0, [0], 0)
    name = ("vllm:spec_decode_num_draft_tokens_total", "")
    assert after[name] == before[name]
