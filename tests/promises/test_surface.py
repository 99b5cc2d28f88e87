"""Every field of the API on the toy pair: the same answer with speculation on and off, and docs/api.md says so."""

from typing import Any

import httpx
import pytest
import toy_gateway
from pydantic import BaseModel
from scripted_gateway import events
from toy_gateway import post

from gateway.requests.chat import ChatRequest
from gateway.requests.completion import CompletionRequest
from gateway.requests.infill import InfillRequest
from gateway.requests.messages import MessagesRequest
from gateway.requests.responses import ResponsesRequest

toy_url = toy_gateway.toy_url  # assigned, since pytest looks for fixtures among a module's names

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, INFILL = "/v1/messages", "/infill"
NAMES = {CHAT: "chat", COMPLETIONS: "completions", RESPONSES: "responses", MESSAGES: "messages", INFILL: "infill"}
SCHEMAS: dict[str, type[BaseModel]] = {
    CHAT: ChatRequest,
    COMPLETIONS: CompletionRequest,
    RESPONSES: ResponsesRequest,
    MESSAGES: MessagesRequest,
    INFILL: InfillRequest,
}
CHOICES = {CHAT: "choices", COMPLETIONS: "choices", RESPONSES: "output", MESSAGES: "content", INFILL: "content"}
BASE: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "What is a token?"}], "max_tokens": 40, "seed": 4},
    COMPLETIONS: {"prompt": "The draft model", "max_tokens": 40, "seed": 4},
    RESPONSES: {"input": "What is a token?", "max_output_tokens": 40, "seed": 4},
    MESSAGES: {"messages": [{"role": "user", "content": "What is a token?"}], "max_tokens": 40, "seed": 4},
    INFILL: {"input_prefix": "The draft", "input_suffix": "the target", "n_predict": 40, "seed": 4, "temperature": 1},
}
SHAPED: dict[str, Any] = {
    "temperature": 0,
    "top_p": 0.5,
    "top_k": 3,
    "min_p": 0.2,
    "seed": 5,
    "frequency_penalty": 2,
    "presence_penalty": 2,
    "repetition_penalty": 1.5,
    "logit_bias": {"70": 100},
    "min_tokens": {"min_tokens": 40, "seed": 11, "temperature": 1.4},
    "ignore_eos": {"ignore_eos": True, "seed": 11, "temperature": 1.4},
    "stop": ["t", "zzz"],
    "stop_token_ids": list(range(300, 400)),
    "include_stop_str_in_output": {"include_stop_str_in_output": True, "stop": "e"},
    "response_format": {"response_format": {"type": "json_object"}},
    "structured_outputs": {"structured_outputs": {"choice": ["to be", "not to be"]}},
    "guided_json": {"guided_json": {"type": "array", "items": {"type": "integer"}, "minItems": 3}},
    "guided_regex": "[a-z]{4}(-[a-z]{2})*",
    "guided_choice": ["red", "green"],
    "guided_grammar": 'start: ("a" | "b")+ "c"',
    "max_tokens": 7,
    "max_completion_tokens": 7,
    "n": 3,
    "return_token_ids": True,
}
"""Fields that change the choices: a value for each, or several fields if it needs them."""
QUIET: dict[str, Any] = {
    "model": {},
    "user": "somebody",
    "metadata": {"key": "value"},
    "stream": False,
    "stream_options": {"stream_options": {"include_usage": True}},
    "best_of": 1,
    "cache_salt": "mine",
    "speculative": {"k": 7, "metrics": True},
}
"""Fields that do not change the choices."""
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "ride",
            "description": "Rides ahead.",
            "parameters": {
                "type": "object",
                "properties": {"miles": {"type": "integer", "minimum": 0, "maximum": 99}},
                "required": ["miles"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "halt", "parameters": {"type": "object", "additionalProperties": False}}},
]
MESSAGES_TOOLS = [{"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in TOOLS]
RESPONSES_TOOLS = [{"type": "function"} | tool["function"] for tool in TOOLS]
OWN: dict[str, dict[str, Any]] = {
    CHAT: {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a seed?"}],
        "prediction": {"type": "content", "content": "A seed is a number from which all the noise follows."},
        "tools": {"tools": TOOLS, "tool_choice": "required", "seed": 6},
        "tool_choice": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "halt"}}},
        "parallel_tool_calls": {"tools": TOOLS[1:], "tool_choice": "required", "parallel_tool_calls": False},
        "chat_template_kwargs": {"enable_thinking": False},
        "logprobs": True,
        "top_logprobs": {"logprobs": True, "top_logprobs": 3},
        "return_tokens_as_token_ids": {"logprobs": True, "return_tokens_as_token_ids": True},
        "include_reasoning": False,
    },
    COMPLETIONS: {
        "prompt": [[70, 80, 90], [99]],
        "echo": {"echo": True, "logprobs": 1},
        "logprobs": 2,
        "return_tokens_as_token_ids": {"logprobs": 1, "return_tokens_as_token_ids": True},
        "suffix": ".",
    },
    RESPONSES: {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "What is a seed?"}]}],
        "instructions": "Be brief.",
        "max_output_tokens": 7,
        "text": {"text": {"format": {"type": "json_object"}}},
        "tools": {"tools": RESPONSES_TOOLS, "tool_choice": "required"},
        "tool_choice": {"tools": RESPONSES_TOOLS, "tool_choice": {"type": "function", "name": "halt"}},
        "parallel_tool_calls": {"tools": RESPONSES_TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "max_tool_calls": 3,
        "reasoning": {"effort": "none", "summary": "auto"},
        "prompt_cache_key": "key",
        "safety_identifier": "somebody",
    },
    MESSAGES: {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is a seed?"}]}],
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "stop_sequences": ["t", "zzz"],
        "tools": {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "any"}, "seed": 6},
        "tool_choice": {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "tool", "name": "halt"}},
        "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "output_config": {
            "output_config": {"format": {"type": "json_schema", "schema": {"enum": ["red", "green"]}}, "effort": "low"}
        },
        "output_format": {"output_format": {"type": "json_schema", "schema": {"enum": ["red", "green"]}}},
        "chat_template_kwargs": {"enable_thinking": False},
    },
    INFILL: {
        "input_prefix": "What is",
        "input_suffix": "of the draft.",
        "input_extra": [{"filename": "notes", "text": "A token is a piece of a text."}],
        "prompt": " model",
        "n_predict": 7,
        "repeat_penalty": 1.5,
        "grammar": 'root ::= [a-z]+ "."',
        "json_schema": {"enum": ["red", "green"]},
        "return_tokens": True,
    },
}
UNTOLD = {
    "prediction", "chat_template_kwargs", "thinking", "max_tool_calls", "reasoning", "prompt_cache_key",
    "safety_identifier", "return_tokens", "include_reasoning",
}  # fmt: skip
"""Further fields that do not change the choices, or not those of a model whose template has no such option."""
CASES = [
    (path, field, value)
    for path in BASE
    for field, value in (SHAPED | QUIET | OWN[path]).items()
    if field in {*SCHEMAS[path].model_fields, "user", "metadata"}
]


CACHED = {"prompt_tokens_details", "input_tokens_details", "cache_read_input_tokens"}  # depend on the requests before
PLAIN: dict[str, dict[str, Any]] = {}
"""The answers to the base requests, which most fields change."""


def without_measurements(body: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that are the same each time the request is repeated."""
    keys = {"status", "model", "system_fingerprint", "object", "seed", "stop_reason", *CHOICES.values()}
    if "usage" not in body:
        return {key: body[key] for key in ("content", "tokens", "tokens_predicted", "tokens_evaluated", "stop_type")}
    usage = {key: value for key, value in body["usage"].items() if key not in CACHED}
    if cached := body["usage"].get("cache_read_input_tokens"):
        usage["input_tokens"] += cached
    return {key: value for key, value in body.items() if key in keys} | {"usage": usage}


def body_of(path: str, field: str, value: Any) -> dict[str, Any]:
    """Return a request that uses a field."""
    return BASE[path] | (value if isinstance(value, dict) and (field in value or not value) else {field: value})


@pytest.mark.parametrize(("path", "field", "value"), CASES, ids=[f"{NAMES[path]} {field}" for path, field, _ in CASES])
async def test_on_equals_off(toy_url: str, path: str, field: str, value: Any) -> None:
    """Speculation on, off and with another k gives the same answer; fields that should change it do."""
    body = body_of(path, field, value)
    answers = [
        without_measurements(await post(toy_url, path, **({"speculative": speculative} | body)))
        for speculative in ({"enabled": True}, {"enabled": False}, {"k": 9})
    ]
    assert approximately(answers[1]) == approximately(answers[0])
    assert approximately(answers[2]) == approximately(answers[0])
    if path not in PLAIN:
        PLAIN[path] = await post(toy_url, path, **BASE[path])
    key = CHOICES[path]
    unchanged = field in {*QUIET, *UNTOLD}
    assert (approximately(PLAIN[path][key]) == approximately(answers[0][key])) == unchanged


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_streamed_on_equals_off(toy_url: str, path: str) -> None:
    """A stream's pieces join to the whole answer, with speculation on and off."""
    whole = (await post(toy_url, path, **BASE[path]))["choices"][0]
    for enabled in (True, False):
        options = {"include_usage": True, "continuous_usage_stats": True}
        fields = {"stream": True, "stream_options": options, "speculative": {"enabled": enabled}}
        async with httpx.AsyncClient(base_url=toy_url, timeout=60) as http:
            *chunks, usage, done = events(await http.post(path, json={"model": "toy"} | BASE[path] | fields))
        pieces = [choice for chunk in chunks for choice in chunk["choices"]]
        text = "".join(piece.get("text", "") or piece.get("delta", {}).get("content", "") for piece in pieces)
        assert text == (whole.get("text") or whole["message"]["content"])
        assert pieces[-1]["finish_reason"] == whole["finish_reason"]
        assert (usage["usage"]["completion_tokens"], done) == (40, "[DONE]")
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert (counts[0], counts[-1]) == (0, 40)
        assert counts == sorted(counts)


def approximately(value: Any) -> Any:
    """Return the answer without the ids of calls, and with log-probabilities that compare equal to within 1e-4."""
    match value:
        case dict():
            named = isinstance(value.get("id"), str)  # the id of a call, which is a new one each time
            return {key: approximately(item) for key, item in value.items() if not (named and "id" in key)}
        case list():
            return [approximately(item) for item in value]
        case float():
            return pytest.approx(value, abs=1e-4)
    return value
