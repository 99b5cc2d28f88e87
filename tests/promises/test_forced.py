"""Tokens that a grammar forces are proposed without a pass of the draft, and change no token."""

import json
from typing import Any

import pytest

from gateway.generation.acceptance_counts import Acceptance
from gateway.generation.round_report import sources
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from shared.sampling_params import Grammar, SamplingParams

SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": {"first_name": {"type": "string", "maxLength": 5}, "favourite_colour": {"enum": ["red", "green"]}},
    "nested": {"address": {"type": "object", "properties": {"street_number": {"enum": [12, 345]}}}},
}
PROMPT = list(range(5, 40))
MAX_TOKENS = 60


def params_of(name: str, temperature: float) -> SamplingParams:
    """Return parameters with this schema, all of whose properties are required."""
    properties = SCHEMAS[name]
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return SamplingParams(temperature, seed=7, grammar=Grammar("json_schema", json.dumps(schema)))


async def run(decode: Decoder, params: SamplingParams, k: int | None, *, forced: bool = True) -> list[Round]:
    """Return the rounds."""
    return [done async for done in decode.decode(PROMPT, params, MAX_TOKENS, k, forced=forced)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", SCHEMAS)
async def test_forced_tokens_change_nothing(toy_decoder: Decoder, name: str, temperature: float) -> None:
    """On equals off, in fewer rounds; and no forced token is counted as a draft token."""
    params = params_of(name, temperature)
    plain = [token_id for done in await run(toy_decoder, params, 0) for token_id in done.token_ids]
    for k in (1, 3, None):
        rounds, without = await run(toy_decoder, params, k), await run(toy_decoder, params, k, forced=False)
        for some in (rounds, without):
            assert [token_id for done in some for token_id in done.token_ids] == plain
        assert not any(done.forced for done in without)
        for done in rounds:
            assert len(done.token_ids) - 1 <= done.num_accepted + len(done.forced) <= len(done.token_ids)
            assert sources(done).count("grammar") == len(done.forced)
            assert k is None or done.num_drafted <= k
        if k:
            assert sum(len(done.forced) for done in rounds) > 3
            assert len(rounds) < len(without)


async def test_counts_tell_forced_tokens_from_guesses(toy_decoder: Decoder) -> None:
    """The mean acceptance length is that of the guesses alone."""
    rounds = await run(toy_decoder, params_of("flat", 0.0), 2)
    acceptance = Acceptance()
    for done in rounds:
        acceptance.count(done.num_drafted, done.num_accepted)
    counts = acceptance.metrics()
    assert counts["num_spec_tokens"] <= 2
    assert counts["num_accepted_tokens"] == sum(done.num_accepted for done in rounds)
    assert max(len(done.forced) + done.num_drafted for done in rounds) > 2
