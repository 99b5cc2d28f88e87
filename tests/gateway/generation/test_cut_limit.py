"""A limit above what the context has left is cut to that, and the reply says so."""

import json
from typing import Any

import httpx
import pytest
import scripted_gateway
from scripted_gateway import CHAT, CONTEXT, Gateway

from gateway.web.limit_header import MAX_TOKENS

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted

CHATS, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
LIMITS: list[tuple[str, dict[str, Any], str]] = [
    (CHATS, {"messages": CHAT}, "max_tokens"),
    (CHATS, {"messages": CHAT}, "max_completion_tokens"),
    (COMPLETIONS, {"prompt": "hi"}, "max_tokens"),
    (RESPONSES, {"prompt": None, "input": "hi"}, "max_output_tokens"),
    (MESSAGES, {"prompt": None, "messages": CHAT}, "max_tokens"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body", "limit"), LIMITS)
async def test_a_limit_above_the_context_is_cut(
    scripted: Gateway, path: str, body: dict[str, Any], limit: str, *, stream: bool
) -> None:
    """Claim: a header and the usage tell of it; a limit for which there is room is not spoken of."""
    body |= {"stream_options": {"include_usage": True}, "stream": stream}
    for asked in (CONTEXT, 32_000, 2**63):
        response = await scripted.post(path, **body, **{limit: asked})
        assert response.status_code == 200
        prompt_ids, _, max_tokens, _ = scripted.decoder.calls[-1]
        assert max_tokens == CONTEXT - len(prompt_ids)
        assert int(response.headers[MAX_TOKENS]) == max_tokens
        assert usage_of(response)["max_tokens"] == max_tokens
    for asked in (max_tokens, 1):
        response = await scripted.post(path, **body, **{limit: asked})
        assert scripted.decoder.calls[-1][2] == asked
        assert MAX_TOKENS not in response.headers
        assert "max_tokens" not in usage_of(response)


def usage_of(response: httpx.Response) -> dict[str, Any]:
    """Return the usage that a reply ends with."""
    lines = response.text.splitlines()
    said = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith(("{", "data: {"))]
    told = [one.get("usage") or one.get("response", {}).get("usage") for one in said]
    return dict([usage for usage in told if usage][-1])


async def test_choices_are_cut_each(scripted: Gateway) -> None:
    """Claim: each prompt's choices have what it leaves, and the shortest of those that were cut is told."""
    prompts = [[5] * 10, [5] * 100, [5] * 50]
    response = await scripted.post(COMPLETIONS, prompt=prompts, n=2, max_tokens=60)
    assert sorted(call[2] for call in scripted.decoder.calls) == [20, 20, 60, 60, 60, 60]
    assert (response.headers[MAX_TOKENS], response.json()["usage"]["max_tokens"]) == ("20", 20)


async def test_what_goes_with_a_cut_limit(scripted: Gateway) -> None:
    """Claim: as many tokens as are left may be the fewest, and log-probabilities are counted for those."""
    room = CONTEXT - 20
    body: dict[str, Any] = {"prompt": [5] * 20, "max_tokens": 10**6}
    for fields in ({"min_tokens": room}, {"logprobs": 20}, {"echo": True}):
        response = await scripted.post(COMPLETIONS, **body, **fields)
        assert (response.status_code, response.headers[MAX_TOKENS]) == (200, str(room))
    response = await scripted.post(COMPLETIONS, **body | {"max_tokens": 0, "echo": True})
    assert (response.status_code, MAX_TOKENS in response.headers) == (200, False)


async def test_pages_may_read_the_header(scripted: Gateway) -> None:
    """Claim: it is among those that a browser shows to pages of other origins."""
    async with httpx.AsyncClient(base_url=scripted.url, headers={"Origin": "http://localhost:3000"}) as http:
        answer = await http.get("/v1/models")
    assert MAX_TOKENS in answer.headers["access-control-expose-headers"]
