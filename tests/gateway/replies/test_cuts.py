"""A reply is the same however its tokens are divided into rounds, which is all that speculation changes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, cycle, islice, pairwise
from typing import Any

import scripted_gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_gateway import MODEL, ROUND_TIME

from gateway.generation.choice import Choice
from gateway.generation.delta import Delta
from gateway.generation.metrics import Meter
from gateway.generation.reply_reader import ReplyReader
from gateway.generation.usage import Usage
from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.reply_format import ReplyFormat
from gateway.replies.chat import ChatReply
from gateway.replies.completion import CompletionReply
from gateway.replies.reply import Answer
from gateway.replies.responses import ResponsesReply
from gateway.requests.chat import ChatRequest
from gateway.requests.completion import CompletionRequest
from gateway.requests.responses import ResponsesRequest
from gateway.rounds.round import FinishReason, Round
from gateway.text.tokenizer import ChatTokenizer
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

TIMES = {"created", "created_at", "completed_at"}
tiny = scripted_gateway.tiny  # assigned, for pytest looks for fixtures among a module's names

FRAGMENTS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "```json", "```", "\n", " ", "Yes.", "é🐎", "END", "EN"),
    *(
        '{"name": "f", "arguments": {',
        '{"arguments": {"a": [1]}, "name": "g"}',
        '"a": "x } \\" {"',
        "}",
        "}}",
        "{",
        "; ",
    ),
    *('{"type": "function", "name": "f", "parameters": {}}', '{"name":', '"f"', "[[", "]", "<tool_c", "</", "\\", '"'),
)
FORMS = [
    ReplyFormat(reasoning, reasoning and thinking, tools, parallel, ["f"] if bare and tools is HERMES else ())
    for reasoning, thinking in ((False, False), (True, False), (True, True))
    for tools in (None, HERMES, LLAMA)
    for parallel in (True, False)
    for bare in (True, False)
]


def read(choice: Choice, tokenizer: ChatTokenizer, rounds: Sequence[Round]) -> Iterator[Delta]:
    """Yield the deltas up to the one that ends the reply."""
    reader = ReplyReader(choice, tokenizer)
    for round_ in rounds:
        delta = reader.read(round_)
        yield delta
        if delta.finish_reason:
            return


def joined(first: Any, second: Any) -> Any:
    """Return what two pieces of one text, or of one list, build up; of anything else, the second."""
    return first + second if isinstance(first, str | list) else second


def events(deltas: Sequence[Delta], tokenizer: ChatTokenizer) -> list[dict[str, Any]]:
    """Return a response's events, those that only lengthen the same item as one, and ids by their order."""
    request = ResponsesRequest.model_validate({"model": MODEL, "input": "hi"})
    usage = Usage(prompt_tokens=2, meter=Meter(MODEL, lambda: 0, lambda: 0))
    reply = ResponsesReply(request, 1, tokenizer.token_bytes, usage)
    found = [*reply.opening(deltas[0]), *(event for delta in deltas for event in reply.events(delta))]
    assert [event.pop("sequence_number") for event in found] == list(range(len(found)))
    merged = list[dict[str, Any]]()
    for event in found:
        same = merged and merged[-1]["type"] == event["type"] and event["type"].endswith(".delta")
        merged[-1:] = (
            [
                {
                    key: joined(merged[-1][key], event[key]) if key in {"delta", "logprobs"} else event[key]
                    for key in event
                }
            ]
            if same
            else [*merged[-1:], event]
        )
    return numbered(merged)


def numbered(body: list[Any]) -> list[Any]:
    """Return a body with its random ids replaced by their order, and no times."""
    ids = dict[str, str]()

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: walk(one, name) for name, one in value.items() if name not in TIMES}
        if isinstance(value, list):
            return [walk(one) for one in value]
        return ids.setdefault(value, f"id {len(ids)}") if key in {"id", "item_id", "call_id"} else value

    return [walk(one) for one in body]


def chats(deltas: Sequence[Delta], tokenizer: ChatTokenizer) -> list[Any]:
    """Return a chat and a completion with these deltas: whole, and as their streams build them up."""
    usage = Usage(prompt_tokens=2, meter=Meter(MODEL, lambda: 0, lambda: 0))
    found = list[Any]()
    for form, request in (
        (ChatReply, ChatRequest.model_validate({"model": MODEL, "messages": scripted_gateway.CHAT, "logprobs": True})),
        (CompletionReply, CompletionRequest.model_validate({"model": MODEL, "prompt": "hi", "logprobs": 1})),
    ):
        choice = Choice(0, [5, 6], SamplingParams(seed=1), 99, None, None, stop_strings=())
        reply, answer, built = form(request, [choice], tokenizer.token_bytes), Answer(), dict[tuple[str, ...], Any]()
        reply.opening(deltas[0])
        for delta in deltas:
            answer.add(delta)
            for chunk in reply.chunks(delta):
                for place, value in leaves(chunk["choices"][0]):
                    built[place] = joined(built[place], value) if place in built else value
        found += numbered([reply.body([answer], usage), sorted(built.items(), key=str)])
    return found


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the values of a chunk by their place; a call's by its index."""
    if isinstance(value, list) and place[-1] == "tool_calls":
        value = {str(call["index"]): {key: one for key, one in call.items() if key != "id"} for call in value}
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, (*place, key))
    elif value is not None:
        yield place, value


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(
    text=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map("".join),
    form=st.sampled_from(FORMS),
    stops=st.sampled_from([(), ("END",), ("}", "</think>")]),
    finish=st.sampled_from(["stop", "length"]),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9),
)
def test_rounds_do_not_show(
    tiny: ChatTokenizer, text: str, sizes: list[int], finish: FinishReason, **fields: Any
) -> None:
    """Claim: a reply of one token a round and one of any other rounds have the same items, texts and scores."""
    token_ids = [*tiny.encode(text), *([2] if finish == "stop" else [])]
    params = SamplingParams(stop_token_ids=frozenset({2}), logprobs=True)
    choice = Choice(0, [5], params, 99, None, None, stop_strings=fields["stops"], form=fields["form"])
    replies = list[str]()
    for pattern in ([1], sizes):
        ends = [0, *accumulate(islice(cycle(pattern), len(token_ids)))]
        parts = [token_ids[start:end] for start, end in pairwise(ends) if start < len(token_ids)]
        scores = iter(pb.TokenLogprobs(logprob=-number) for number in range(len(token_ids)))
        rounds = [Round(part, 0, 0, None, ROUND_TIME, logprobs=list(islice(scores, len(part)))) for part in parts]
        rounds[-1] = replace(rounds[-1], finish_reason=finish)
        deltas = list(read(choice, tiny, rounds))
        replies.append(json.dumps([events(deltas, tiny), *chats(deltas, tiny)], indent=1))
    assert replies[0] == replies[1]
