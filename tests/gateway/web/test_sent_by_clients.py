"""Forms of requests that clients in use send, and forms of replies that they can read."""

import json
from typing import Any

import pytest
import scripted_gateway
from scripted_gateway import CHAT, Gateway

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted

UNUSABLE = [
    '{"path": "a.t', '{"city": "the "old" town"}', '{"code": "a\nb"}', "", "null", "[1]", '"x"', "5", "ls -la",
    json.dumps({"a": [{}] * 1_000_000}), "[" * 100_000, r'{"a":"\ud83d"}',
]  # fmt: skip
"""Arguments as they stand in the history after a reply that was cut off, or went wrong."""


@pytest.mark.parametrize("arguments", UNUSABLE, ids=lambda text: text[:20])
async def test_any_text_is_arguments(scripted: Gateway, arguments: str) -> None:
    """Claim: what a model wrote ends no chat: arguments that no template could render are rendered as none."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"role": "tool", "tool_call_id": "c", "content": "bad"}
    assert (await scripted.post(messages=[*CHAT, said, answer])).status_code == 200
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments},
        {"type": "function_call_output", "call_id": "c", "output": "bad"},
    ]
    assert (await scripted.post("/v1/responses", input=items, prompt=None)).status_code == 200


REFUSAL = {"type": "refusal", "refusal": "No."}
SILENT: list[tuple[dict[str, Any], str]] = [
    ({"role": "assistant", "content": None}, ""),
    ({"role": "assistant", "content": None, "tool_calls": []}, ""),
    ({"role": "assistant", "reasoning_content": "Hm."}, ""),
    ({"role": "assistant", "content": None, "refusal": "No."}, "No."),
    ({"role": "assistant", "content": [REFUSAL]}, "No."),
    ({"role": "tool", "tool_call_id": "c", "content": None}, ""),
]
"""Messages without content, and how they are rendered."""


@pytest.mark.parametrize(("message", "text"), SILENT)
async def test_a_reply_without_content_goes_on(scripted: Gateway, message: dict[str, Any], text: str) -> None:
    """Claim: a reply that only thought, refused, or was cut off before it said anything is taken back as it came."""
    assert (await scripted.post(messages=[*CHAT, message, *CHAT])).status_code == 200
    sent = scripted.tokenizer.decode(scripted.decoder.calls[0][0])
    assert f"<|im_start|>{message['role']}\n{text}<|im_end|>" in sent


async def test_a_refusal_is_an_items_text(scripted: Gateway) -> None:
    """Claim: the same of a response's message."""
    items = [*CHAT, {"type": "message", "role": "assistant", "content": [REFUSAL]}, *CHAT]
    assert (await scripted.post("/v1/responses", input=items, prompt=None)).status_code == 200
    assert "assistant\nNo.<" in scripted.tokenizer.decode(scripted.decoder.calls[0][0])


async def test_whole_numbers_are_integers(scripted: Gateway) -> None:
    """Claim: 16.0 is 16, as in JSON; in lists of token ids, too."""
    fields: dict[str, Any] = {
        "max_tokens": 16.0,
        "n": 1.0,
        "seed": 7.0,
        "top_k": 5.0,
        "logprobs": True,
        "top_logprobs": 2.0,
    }
    assert (await scripted.post(**fields, stop_token_ids=[9.0])).status_code == 200
    _, params, max_tokens, _ = scripted.decoder.calls[0]
    assert (max_tokens, params.seed, params.top_k, params.top_logprobs) == (16, 7, 5, 2)
    assert 9 in params.stop_token_ids
    for prompt in ([5.0, 6], [[5.0, 6.0]]):
        assert (await scripted.post("/v1/completions", prompt=prompt)).status_code == 200
        assert scripted.decoder.calls[-1][0] == [5, 6]


@pytest.mark.parametrize("stop", [[], ["\r\n", "\n\n"], [f"stop{i}" for i in range(256)], ["é", "\U0001f642"]])
async def test_many_stop_strings(scripted: Gateway, stop: list[str]) -> None:
    """Claim: editors send dozens, and may."""
    assert (await scripted.post(stop=stop)).status_code == 200


async def test_names_of_tokens_stop(scripted: Gateway) -> None:
    """Claim: a stop string that is the name of a special token, which has no text, ends the reply at that token."""
    fields: dict[str, Any] = {"stop": ["<|im_start|>", "x"], "ignore_eos": True}
    assert (await scripted.post(**fields)).status_code == 200
    assert scripted.decoder.calls[0][1].stop_token_ids == {1}
    assert (await scripted.post("/v1/completions", **fields)).status_code == 200
    assert scripted.decoder.calls[1][1].stop_token_ids == {1}


async def test_an_event_is_one_line(scripted: Gateway) -> None:
    """Claim: characters at which some clients end a line are escaped, and come back."""
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    scripted.play(text)
    response = await scripted.post(stream=True)
    lines = [line for line in response.text.splitlines() if line]
    assert lines.pop() == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text


async def test_an_event_of_a_response_is_one_line(scripted: Gateway) -> None:
    """Claim: the same of named events."""
    scripted.play("a\u2028b")
    response = await scripted.post("/v1/responses", input="hi", prompt=None, stream=True)
    assert [line for line in response.text.splitlines() if line and not line.startswith(("event: ", "data: "))] == []
