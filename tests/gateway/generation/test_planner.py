"""What a request may ask for, before any of it is done."""

from typing import Any

import pytest
import scripted_gateway
from scripted_gateway import CHAT, CONTEXT, Gateway, error_of

from gateway.generation import planner
from gateway.generation.prompts import Prompts
from gateway.requests.responses import LOGPROBS
from gateway.settings import GatewaySettings
from shared.sampling_params import MAX_GRAMMAR_CHARACTERS

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted

CHATS, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MAX_CHOICES = GatewaySettings.model_fields["max_choices"].default
LONG = "word " * 1000
TOO_LONG: list[tuple[str, dict[str, Any], str]] = [
    (COMPLETIONS, {"prompt": LONG}, "prompt"),
    (COMPLETIONS, {"prompt": ["a", LONG]}, "prompt"),
    (COMPLETIONS, {"prompt": "a" * CONTEXT}, "prompt"),
    (COMPLETIONS, {"prompt": [5] * CONTEXT}, "prompt"),
    (COMPLETIONS, {"prompt": [[5], [5] * CONTEXT]}, "prompt"),
    (CHATS, {"messages": [{"role": "user", "content": LONG}]}, "messages"),
    (CHATS, {"messages": [{"role": "user", "content": "some words"}] * CONTEXT}, "messages"),
    (CHATS, {"messages": [{"role": "user", "content": ""}] * (CONTEXT + 1)}, "messages"),
    (CHATS, {"messages": CHAT, "prediction": {"type": "content", "content": LONG}}, "prediction"),
    (RESPONSES, {"prompt": None, "input": LONG}, "input"),
    (RESPONSES, {"prompt": None, "input": "a", "instructions": LONG}, "input"),
]


@pytest.mark.parametrize(("path", "fields", "param"), TOO_LONG, ids=lambda value: str(value)[:40])
async def test_more_than_the_context(scripted: Gateway, path: str, fields: dict[str, Any], param: str) -> None:
    """What cannot fit is a 400 with OpenAI's code that names the field, by its bytes or by its tokens."""
    error = error_of(await scripted.post(path, **fields))
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert f"no room for a reply in the context of {CONTEXT}" in error["message"]
    assert scripted.decoder.calls == []


async def test_choices_are_counted_before_prompts_are_read(scripted: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts times n are bounded, and so are the tokens of all prompts together."""
    prompts = ["a"] * (MAX_CHOICES // 8)
    assert (await scripted.post(COMPLETIONS, prompt=prompts, n=8)).status_code == 200
    assert len(scripted.decoder.calls) == MAX_CHOICES
    with monkeypatch.context() as patch:
        patch.setattr(Prompts, "encode", None)  # not called
        error = error_of(await scripted.post(COMPLETIONS, prompt=[*prompts, "a"], n=8))
    assert error["param"] == "prompt"
    assert f"more than {MAX_CHOICES}" in error["message"]
    monkeypatch.setattr(planner, "MAX_PROMPT_TOKENS", CONTEXT)
    error = error_of(await scripted.post(COMPLETIONS, prompt=["a" * (CONTEXT // 2)] * 3))
    assert (error["param"], f"more than {CONTEXT} tokens" in error["message"]) == ("prompt", True)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (COMPLETIONS, {"stop": "a" * 257}, "stop"),
        (COMPLETIONS, {"stop": ["a"] * 257}, "stop"),
        (COMPLETIONS, {"stop_token_ids": list(range(4097))}, "stop_token_ids"),
        (COMPLETIONS, {"logit_bias": {str(key): 1 for key in range(4097)}}, "logit_bias"),
        (COMPLETIONS, {"guided_regex": "a" * (MAX_GRAMMAR_CHARACTERS + 1)}, "guided_regex"),
        (COMPLETIONS, {"guided_grammar": "a" * (MAX_GRAMMAR_CHARACTERS + 1)}, "guided_grammar"),
        (COMPLETIONS, {"guided_json": {"title": "a" * MAX_GRAMMAR_CHARACTERS}}, "guided_json"),
        (COMPLETIONS, {"guided_json": "{"}, "guided_json"),
        (COMPLETIONS, {"guided_choice": ["a" * 2**10] * (MAX_GRAMMAR_CHARACTERS // 2**10 + 1)}, "guided_choice"),
        (COMPLETIONS, {"structured_outputs": {"json": "[" * 1000}}, "structured_outputs.json"),
        (
            COMPLETIONS,
            {"structured_outputs": {"regex": "a" * (MAX_GRAMMAR_CHARACTERS + 1)}},
            "structured_outputs.regex",
        ),
        (CHATS, {"messages": [{"role": "user", "content": ""}] * 10_001}, "messages"),
        (CHATS, {"tools": [{"type": "function", "function": {"name": "f"}}] * 513}, "tools"),
        (RESPONSES, {"prompt": None, "input": "a", "include": ["a"] * 101}, "include"),
        (RESPONSES, {"prompt": None, "input": "a", "metadata": {str(key): "" for key in range(17)}}, "metadata"),
        (RESPONSES, {"prompt": None, "input": "a", "metadata": {"a": "a" * 513}}, "metadata.a"),
        (RESPONSES, {"prompt": None, "input": "a", "metadata": {"a" * 65: "a"}}, "metadata." + "a" * 65),
        (RESPONSES, {"prompt": None, "input": "a", "prompt_cache_key": "a" * 1025}, "prompt_cache_key"),
        (RESPONSES, {"prompt": None, "input": "a", "reasoning": {"effort": "a" * 65}}, "reasoning.effort"),
        (RESPONSES, {"prompt": None, "input": "a", "tools": [{"type": "web_search"}] * 513}, "tools"),
        (RESPONSES, {"prompt": None, "input": [{"type": "x"}] * 10_001}, "input"),
        (RESPONSES, {"prompt": None, "input": [{"type": "a" * 65}]}, "input.0.type"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_every_value_has_a_bound(scripted: Gateway, path: str, fields: dict[str, Any], param: str) -> None:
    """Lists, objects and texts without one of their own are a 400 that names the field."""
    response = await scripted.post(path, **fields)
    assert (response.status_code, error_of(response)["param"]) == (400, param)
    assert scripted.decoder.calls == []


async def test_what_a_reply_repeats_is_bounded(scripted: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are not offered, a form that is not asked for, and echoed prompts, over all choices."""
    long = "a" * planner.MAX_ECHO
    tools = [{"type": "function", "name": "f", "description": long}]
    for fields, param in (
        ({"tools": tools, "tool_choice": "none"}, "tools"),
        ({"text": {"format": {"type": "text", "name": long}}}, "text"),
        ({"text": {"format": {"type": "text", "schema": {"title": long}}}}, "text"),
    ):
        response = await scripted.post(RESPONSES, prompt=None, input="hi", **fields)
        assert (response.status_code, error_of(response)["param"]) == (400, param)
    monkeypatch.setattr(planner, "MAX_ECHO", 100)
    for prompts, status in ((["a" * 25] * 2, 200), (["a" * 25, "a" * 26], 400)):
        response = await scripted.post(COMPLETIONS, prompt=prompts, n=2, echo=True)
        assert response.status_code == status
    assert error_of(response)["param"] == "echo"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (COMPLETIONS, {"logprobs": 4, "max_tokens": 13}, "logprobs"),
        (COMPLETIONS, {"logprobs": 4, "max_tokens": 13, "stream": True}, "logprobs"),
        (COMPLETIONS, {"logprobs": 0, "max_tokens": 31, "n": 2}, "logprobs"),
        (COMPLETIONS, {"logprobs": 4, "max_tokens": 7, "prompt": ["a", "b"]}, "logprobs"),
        (COMPLETIONS, {"logprobs": 4, "max_tokens": 8, "echo": True, "prompt": [5] * 5}, "logprobs"),
        (CHATS, {"logprobs": True, "max_tokens": 61}, "logprobs"),
        (CHATS, {"logprobs": True, "top_logprobs": 9, "max_completion_tokens": 7}, "top_logprobs"),
        (RESPONSES, {"prompt": None, "input": "a", "top_logprobs": 9, "max_output_tokens": 7}, "top_logprobs"),
        (RESPONSES, {"prompt": None, "input": "a", "include": [LOGPROBS], "max_output_tokens": 61}, "include"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_logprobs_are_bounded(
    scripted: Gateway, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, Any], param: str
) -> None:
    """They are counted over all choices and tokens, echoed ones too; one token less is decoded."""
    monkeypatch.setattr(planner, "MAX_LOGPROBS", 60)
    response = await scripted.post(path, **fields)
    assert (response.status_code, error_of(response)["param"]) == (400, param)
    assert "up to 60" in error_of(response)["message"]
    assert scripted.decoder.calls == []
    [(limit, most)] = [(name, value) for name, value in fields.items() if name.startswith("max_")]
    await scripted.post(path, **fields | {limit: most - 1})
    assert len(scripted.decoder.calls) > 0


async def test_logprobs_bound_a_reply_without_a_limit(scripted: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chat that does not say how long its reply may be ends before its log-probabilities are too many."""
    monkeypatch.setattr(planner, "MAX_LOGPROBS", 100)
    assert (await scripted.post(CHATS, n=2, logprobs=True, top_logprobs=4)).status_code == 200
    assert [max_tokens for _, _, max_tokens, _ in scripted.decoder.calls] == [10, 10]


async def test_tokenizing_more_than_the_context(scripted: Gateway) -> None:
    """A text may be counted that does not fit, unless it is very long."""
    response = await scripted.post("/tokenize", prompt="word " * CONTEXT)
    assert response.json()["count"] > CONTEXT
    response = await scripted.post("/tokenize", prompt="word " * 2**20)
    assert error_of(response)["code"] == "context_length_exceeded"
