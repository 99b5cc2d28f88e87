"""What clients learn of who decodes: whose fingerprint a reply has, and that a target is not exact."""

import json
from collections.abc import Sequence
from typing import Any, cast

import httpx
import pytest
import scripted_gateway
from scripted_gateway import MODEL, ROUND_TIME, Gateway, ScriptedDecoder, events, serve

from gateway.clients.target.identity import joint_fingerprint, system_fingerprint
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.model_routes import INEXACT
from shared.pb import specdec_pb2 as pb

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted

FIELDS = pb.ModelIdentity.DESCRIPTOR.fields_by_name
HERE, THERE = (pb.ModelIdentity(weights="w", kernel=kernel) for kernel in ("here", "there"))


def script(scripted: Gateway, replicas: Sequence[pb.ModelIdentity]) -> None:
    """Let the sessions to come be of one round each, the first one of the first of these replicas and so on."""
    scripted.decoder.script = iter([Round([5], 0, 0, "stop", ROUND_TIME, identity=identity) for identity in replicas])


async def stream(scripted: Gateway, **fields: Any) -> list[dict[str, Any]]:
    """Return the chunks of a stream, with that of the usage."""
    return events(await scripted.post(stream=True, stream_options={"include_usage": True}, **fields))[:-1]


async def test_system_fingerprint(scripted: Gateway) -> None:
    """Claim: it is in every reply and chunk, and changes with each field of the identity of who decodes."""
    values = {name: True if name == "row_exact" else "x" for name in FIELDS}
    replicas = [pb.ModelIdentity(), *(pb.ModelIdentity(**cast("Any", {name: values[name]})) for name in values)]
    seen = set()
    for identity in replicas:
        script(scripted, [identity] * 2)
        whole = (await scripted.post()).json()["system_fingerprint"]
        assert {chunk["system_fingerprint"] for chunk in await stream(scripted)} == {whole}
        assert whole == system_fingerprint(identity)
        seen.add(whole)
    assert len(seen) == len(replicas) == 9


async def test_choices_of_several_replicas(scripted: Gateway) -> None:
    """Claim: a chunk has the fingerprint of its choice; what is of all choices has theirs, or one of all together."""
    fingerprints = [system_fingerprint(identity) for identity in (HERE, THERE)]
    both = joint_fingerprint(fingerprints)
    assert both not in fingerprints
    assert joint_fingerprint(reversed(fingerprints)) not in {both, *fingerprints}
    for replicas, joint in (([HERE, THERE], both), ([HERE, HERE], fingerprints[0])):
        script(scripted, replicas * 2)
        assert (await scripted.post(n=2)).json()["system_fingerprint"] == joint
        *chunks, usage = await stream(scripted, n=2)
        pairs = {(chunk["choices"][0]["index"], chunk["system_fingerprint"]) for chunk in chunks}
        assert pairs == set(enumerate(map(system_fingerprint, replicas)))
        assert usage["system_fingerprint"] == joint


async def test_responses(scripted: Gateway) -> None:
    """Claim: a response has it, and so have the events of one from the first on."""
    script(scripted, [THERE] * 2)
    ask: dict[str, Any] = {"model": MODEL, "input": "hi"}
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        whole = (await http.post("/v1/responses", json=ask)).json()
        streamed = (await http.post("/v1/responses", json=ask | {"stream": True})).text
    lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
    responses = [event["response"] for event in map(json.loads, lines) if "response" in event]
    assert len(responses) == 3
    assert {body["system_fingerprint"] for body in (whole, *responses)} == {system_fingerprint(THERE)}


@pytest.mark.parametrize("row_exact", [True, False])
async def test_an_inexact_target(tiny: ChatTokenizer, *, row_exact: bool) -> None:
    """Claim: the model's description has a warning exactly if rows are not exact, and the version says it, too."""
    decoder = ScriptedDecoder()
    decoder.target.row_exact, decoder.target.identity.kernel = row_exact, "a kernel"
    async with serve(tiny, decoder) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
        models, version = [(await http.get(path)).json() for path in ("/v1/models", "/version")]
        one = (await http.get(f"/v1/models/{MODEL}")).json()
    assert models["data"] == [one]
    assert (one["row_exact"], one.get("warning")) == (row_exact, None if row_exact else INEXACT)
    assert (version["row_exact"], version["kernel"], version["graphs"]) == (row_exact, "a kernel", None)


async def test_chosen_graphs(tiny: ChatTokenizer) -> None:
    """Claim: the version tells all that a device of fixed shapes chose at its start."""
    decoder = ScriptedDecoder()
    chosen = {"row_counts": [5, 9], "wide_prefill": False, "larger_buckets": True, "draws": "greedy"}
    chosen |= {"prefill_us": 3, "verify_us": 7}
    assert chosen.keys() == set(pb.GraphChoice.DESCRIPTOR.fields_by_name)
    decoder.target.graphs.CopyFrom(pb.GraphChoice(**cast("Any", chosen)))
    async with serve(tiny, decoder) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
        assert (await http.get("/version")).json()["graphs"] == chosen
