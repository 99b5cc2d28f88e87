"""Replies that fill the context, by limits that were cut to it: the same with speculation on and off."""

from typing import Any

import pytest
import toy_gateway
from test_surface import CHAT, CHOICES, COMPLETIONS, MESSAGES, RESPONSES, approximately, without_measurements
from toy_gateway import post

toy_url = toy_gateway.toy_url  # assigned, since pytest looks for fixtures among a module's names

CONTEXT, LEFT = 2048, 9
PROMPT = [70, 80, 90] * ((CONTEXT - LEFT) // 3) + [70] * ((CONTEXT - LEFT) % 3)
OPEN: dict[str, Any] = {"seed": 4, "ignore_eos": True, "max_tokens": 32_000}
ASK = [{"role": "user", "content": "What is a token? " * 336}]
CASES: list[tuple[str, dict[str, Any]]] = [
    (COMPLETIONS, {"prompt": PROMPT} | OPEN),
    (COMPLETIONS, {"prompt": PROMPT, "echo": True, "logprobs": 1} | OPEN),
    (COMPLETIONS, {"prompt": [PROMPT, PROMPT[:30]], "n": 2} | OPEN | {"max_tokens": LEFT + 5}),
    (COMPLETIONS, {"prompt": PROMPT, "guided_regex": "[a-z]{40}", "min_tokens": LEFT} | OPEN),
    (COMPLETIONS, {"prompt": PROMPT, "guided_choice": ["to be or not to be, that is the question"]} | OPEN),
    (CHAT, {"messages": ASK, "min_tokens": 8} | OPEN),
    (RESPONSES, {"input": ASK, "seed": 4, "ignore_eos": True, "max_output_tokens": 32_000}),
    (MESSAGES, {"messages": ASK} | OPEN),
]


@pytest.mark.parametrize(("path", "body"), CASES, ids=lambda value: str(value)[-60:])
async def test_on_equals_off_to_the_last_position(toy_url: str, path: str, body: dict[str, Any]) -> None:
    """Claim: the last positions of the context hold the same tokens, and the reply ends by its length."""
    said = [
        await post(toy_url, path, **body, speculative=speculative)
        for speculative in ({"enabled": True}, {"enabled": False}, {"k": 12})
    ]
    answers = [approximately(without_measurements(one)) for one in said]
    assert answers[1:] == answers[:1] * 2
    usage = said[0]["usage"]
    if path == COMPLETIONS:
        assert usage["max_tokens"] == LEFT
    reasons = {choice.get("finish_reason") for choice in said[0].get("choices", [])}
    assert reasons <= {"length"}
    assert said[0].get("status", "incomplete") == "incomplete"
    assert said[0].get("stop_reason", "model_context_window_exceeded") == "model_context_window_exceeded"
    assert said[0][CHOICES[path]]
