"""What a client that asks for it gets of each round."""

from collections import Counter
from typing import Any

import httpx
import pytest
import scripted_gateway
import toy_gateway
from prometheus_client.parser import text_string_to_metric_families
from scripted_gateway import ROUND_TIME, Gateway, events
from test_surface import BASE, CHAT, COMPLETIONS, RESPONSES
from toy_gateway import post

from gateway.rounds.round import Round
from gateway.rounds.round_time import PARTS
from gateway.speculation.decision import Reason

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted
toy_url = toy_gateway.toy_url

ROUNDS = {"rounds": True}


def joined(rounds: list[dict[str, Any]]) -> str:
    """Return the text that the rounds tell of."""
    return "".join(token["text"] for report in rounds for token in report["tokens"])


@pytest.mark.parametrize("stream", [False, True])
async def test_where_tokens_come_from(scripted: Gateway, *, stream: bool) -> None:
    """Claim: each token has its source, up to where the reply ends; a character is its last token's."""
    ids = scripted.tokenizer.encode("the 🐎 rides")
    horse = scripted.tokenizer.encode(" 🐎")
    assert len(horse) > 2
    scripted.decoder.script = [
        Round(ids[:2], 3, 1, None, ROUND_TIME, proposer="lookup"),
        Round(ids[2:4], 1, 1, None, ROUND_TIME, proposer="prediction"),
        Round(ids[4:5], 0, 0, None, ROUND_TIME),
        Round([*ids[5:], 2], 9, len(ids) - 4, "stop", ROUND_TIME, proposer="model"),
    ]
    response = await scripted.post(stream=stream, speculative=ROUNDS)
    if stream:
        pieces = [choice for chunk in events(response)[:-1] for choice in chunk["choices"]]
        rounds = [report for piece in pieces for report in piece.get("rounds", [])]
        assert ["".join(t["text"] for t in report["tokens"]) for report in rounds] == [
            piece["delta"].get("content", "") for piece in pieces if "rounds" in piece
        ]
    else:
        rounds = response.json()["choices"][0]["rounds"]
    sources = [[token["source"] for token in report["tokens"]] for report in rounds]
    assert sources == [["lookup", "recovered"], ["prediction", "bonus"], ["plain"], ["model"] * (len(ids) - 4)]
    assert [token["id"] for report in rounds for token in report["tokens"]] == [*ids, 2]
    assert joined(rounds) == "the 🐎 rides"
    assert [(report["proposer"], report["num_drafted"], report["num_accepted"]) for report in rounds[:3]] == [
        ("lookup", 3, 1),
        ("prediction", 1, 1),
        (None, 0, 0),
    ]
    assert set(rounds[0]["time_ms"]) == set(PARTS)
    assert rounds[0]["time_ms"]["verify"] == pytest.approx(ROUND_TIME.verify * 1000)


async def test_why(scripted: Gateway) -> None:
    """Claim: each round says why it has its draft tokens, to the client and, counted, to Prometheus."""
    reasons = [Reason.PAYS, Reason.NO_DRAFT, Reason.NO_DRAFT, Reason.PROBE_PLAIN]
    before = await rounds_by_reason(scripted)
    scripted.decoder.script = [
        Round([5], 0, 0, "stop" if index == 3 else None, ROUND_TIME, reason=reason)
        for index, reason in enumerate(reasons)
    ]
    rounds = (await scripted.post(speculative=ROUNDS)).json()["choices"][0]["rounds"]
    assert [report["reason"] for report in rounds] == ["pays", "no_draft", "no_draft", "probe_plain"]
    after = await rounds_by_reason(scripted)
    assert before.keys() == after.keys() == set(Reason)
    assert {reason: after[reason] - before[reason] for reason in Reason} == dict.fromkeys(Reason, 0.0) | Counter(
        reasons
    )


async def rounds_by_reason(scripted: Gateway) -> dict[str, float]:
    """Return what Prometheus reads."""
    async with httpx.AsyncClient(base_url=scripted.url) as client:
        exposition = (await client.get("/metrics")).text
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == "outrider_rounds_total"
    }


async def test_a_stop_string_ends_the_tokens(scripted: Gateway) -> None:
    """Claim: tokens after a stop string are not reported."""
    rounds = (await scripted.post(stop=["s ah"], speculative=ROUNDS)).json()["choices"][0]["rounds"]
    assert joined(rounds) == "the horse ride"


async def test_nobody_asked(scripted: Gateway) -> None:
    """Claim: without the field there are no rounds, and no chunk without a text."""
    response = await scripted.post(stream=True)
    assert "rounds" not in response.text
    assert "rounds" not in (await scripted.post()).text


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
async def test_rounds(toy_url: str, path: str) -> None:
    """Claim: they tell of the whole text, which is that without them, with speculation on and off."""
    texts, sources, reasons = set(), [], []
    for speculative in ({"k": 4}, {"enabled": False}):
        body = await post(toy_url, path, **BASE[path], cache_salt=path, speculative=speculative | ROUNDS)
        if path == RESPONSES:
            rounds, text = body["rounds"], body["output"][0]["content"][0]["text"]
        else:
            choice = body["choices"][0]
            rounds, text = choice["rounds"], choice.get("text") or choice["message"]["content"]
        assert joined(rounds) == text
        texts.add(text)
        sources.append({token["source"] for report in rounds for token in report["tokens"]})
        reasons.append({report["reason"] for report in rounds})
    assert len(texts) == 1
    assert {"model", "recovered"} <= sources[0] <= {"model", "lookup", "recovered", "bonus", "plain"}
    assert sources[1] == {"plain"}
    assert {"requested"} <= reasons[0] <= {"requested", "no_draft", "last_token"}
    assert reasons[1] == {"requested"}


async def test_rounds_of_several_choices(toy_url: str) -> None:
    """Claim: in a stream each choice has its own."""
    ask = {"model": "toy", "n": 2, "stream": True, "speculative": ROUNDS} | BASE[CHAT]
    async with httpx.AsyncClient(base_url=toy_url, timeout=60) as http:
        chunks = events(await http.post(CHAT, json=ask))[:-1]
    for index in (0, 1):
        pieces = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        reports = [report for piece in pieces for report in piece.get("rounds", [])]
        assert joined(reports) == "".join(piece["delta"].get("content", "") for piece in pieces)
        assert reports
