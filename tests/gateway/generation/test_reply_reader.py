"""What a round adds to a reply, without a decoder and without a wait."""

from dataclasses import replace
from typing import Any

import pytest
import scripted_gateway
from scripted_gateway import ROUND_TIME, TEXT

from gateway.generation.choice import Choice
from gateway.generation.delta import Delta
from gateway.generation.metrics import Meter
from gateway.generation.reply_reader import ReplyReader
from gateway.generation.usage import Usage
from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.reply_format import ReplyFormat
from gateway.rounds.round import FinishReason, Round
from gateway.text.tokenizer import ChatTokenizer
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

tiny = scripted_gateway.tiny  # assigned, for pytest looks for fixtures among a module's names

STOP = 2
PARAMS = SamplingParams(stop_token_ids=frozenset({STOP}))
PLAIN = Choice(
    index=3, prompt_ids=[5, 6], params=PARAMS, max_tokens=99, k=None, num_lookup_tokens=None, stop_strings=()
)


def rounds(token_ids: list[int], size: int, finish_reason: FinishReason = "stop", **fields: Any) -> list[Round]:
    """Return rounds of so many tokens each, of which the last one ends the reply."""
    parts = [token_ids[start : start + size] for start in range(0, len(token_ids), size)]
    every = [Round(part, size, len(part) - 1, None, ROUND_TIME, proposer="model", **fields) for part in parts]
    return [*every[:-1], replace(every[-1], finish_reason=finish_reason)]


def read(choice: Choice, tokenizer: ChatTokenizer, script: list[Round]) -> tuple[ReplyReader, list[Delta]]:
    """Return the deltas up to the one that ends the reply, and who read them."""
    reader, deltas = ReplyReader(choice, tokenizer), list[Delta]()
    for round_ in script:
        deltas.append(reader.read(round_))
        if deltas[-1].finish_reason:
            break
    return reader, deltas


def content(deltas: list[Delta]) -> str:
    """Return the text of all deltas."""
    return "".join(delta.parts.content for delta in deltas)


@pytest.mark.parametrize("size", [1, 3, 99])
def test_echo_comes_first_and_once(tiny: ChatTokenizer, size: int) -> None:
    """The reply begins with the echo, whatever the rounds; all deltas have the index of the choice."""
    choice = replace(PLAIN, echo="Once ")
    reader, deltas = read(choice, tiny, rounds([*tiny.encode(TEXT), STOP], size))
    assert content(deltas) == f"Once {TEXT}"
    assert deltas[0].parts.content.startswith("Once ")
    assert {delta.index for delta in deltas} == {3}
    assert reader.token_ids == [*tiny.encode(TEXT), STOP]


def test_nothing_but_the_echo(tiny: ChatTokenizer) -> None:
    """A round without tokens ends a reply that is its echo."""
    _, deltas = read(replace(PLAIN, echo="Once"), tiny, [Round([], 0, 0, "length", ROUND_TIME)])
    assert [(delta.parts.content, delta.finish_reason) for delta in deltas] == [("Once", "length")]


def test_prompt_logprobs_come_with_the_first_round(tiny: ChatTokenizer) -> None:
    """They stand before those of the reply, the first token without any; offsets go through both texts."""
    prompt_ids = tiny.encode("the 🐎 and ")
    token_ids = tiny.encode("the coach")
    script = rounds(token_ids, 2, "length")
    script = [
        replace(round_, logprobs=[pb.TokenLogprobs(logprob=-number) for _ in round_.token_ids])
        for number, round_ in enumerate(script, 1)
    ]
    of_prompt = [pb.TokenLogprobs(logprob=-9.0) for _ in prompt_ids[1:]]
    script[0] = replace(script[0], prompt_logprobs=of_prompt)
    params = replace(PARAMS, logprobs=True, prompt_logprobs=True)
    choice = replace(PLAIN, prompt_ids=prompt_ids, echo="the 🐎 and ", params=params)
    _, deltas = read(choice, tiny, script)
    scored = [token for delta in deltas for token in delta.logprobs]
    assert [token.token_id for token in scored] == [*prompt_ids, *token_ids]
    assert [len(delta.logprobs) for delta in deltas] == [len(prompt_ids) + 2] + [
        len(round_.token_ids) for round_ in script[1:]
    ]
    assert scored[0].logprobs is None
    assert [token.logprobs for token in scored[1 : len(prompt_ids)]] == of_prompt
    text = "the 🐎 and the coach"
    spelled = [text.startswith(tiny.decode([token.token_id]), token.offset) for token in scored]
    assert spelled == [tiny.decode([token.token_id]) != "\ufffd" for token in scored]  # a part of the horse is no text


def test_stop_tokens_have_no_logprobs(tiny: ChatTokenizer) -> None:
    """A token that is not shown is not scored, unless the request wants its text."""
    token_ids = [*tiny.encode(TEXT), STOP]
    script = [replace(rounds(token_ids, 99)[0], logprobs=[pb.TokenLogprobs(logprob=-1.0)] * len(token_ids))]
    for include_stop in (False, True):
        _, [delta] = read(replace(PLAIN, include_stop=include_stop), tiny, script)
        assert len(delta.logprobs) == len(token_ids) - 1 + include_stop


@pytest.mark.parametrize("size", [1, 2, 3, 99])
@pytest.mark.parametrize("include_stop", [True, False])
def test_stop_string_across_rounds(tiny: ChatTokenizer, size: int, *, include_stop: bool) -> None:
    """A stop string ends the reply where it is complete, however rounds divide it; what follows is not in the reply."""
    token_ids = tiny.encode(TEXT)
    choice = replace(PLAIN, stop_strings=("e rid",), include_stop=include_stop)
    reader, deltas = read(choice, tiny, rounds(token_ids, size, "length"))
    end = "the horse rid" if include_stop else "the hors"
    assert content(deltas) == end
    assert deltas[-1].finish_reason == "stop"
    needed = next(number for number in range(len(token_ids)) if "e rid" in tiny.decode(token_ids[:number]))
    assert reader.token_ids == token_ids[:needed]
    assert sum(len(delta.report.texts) for delta in deltas) == needed


def test_what_was_held_back_comes_at_the_end(tiny: ChatTokenizer) -> None:
    """The beginning of a stop string that never came, and of a character, are given on with the last token."""
    token_ids = tiny.encode(f"{TEXT} 🐎")[:-1]
    choice = replace(PLAIN, stop_strings=("ahead of",))
    _, deltas = read(choice, tiny, rounds(token_ids, 1, "length"))
    assert "ahead" not in content(deltas[:-1])
    assert content(deltas) == f"{TEXT} \ufffd"
    assert "".join(text for delta in deltas for text in delta.report.texts) == content(deltas)


@pytest.mark.parametrize("size", [1, 3, 99])
@pytest.mark.parametrize("reasons", [True, False])
def test_reasoning_is_counted(tiny: ChatTokenizer, size: int, *, reasons: bool) -> None:
    """The counts of all deltas add up to the tokens between the tags, tags included; what only began so is none."""
    thought, said = ("<think>Hm.</think>", "Yes") if reasons else ("", "<thing>")
    token_ids = [*tiny.encode(thought), *tiny.encode(said), STOP]
    choice = replace(PLAIN, form=ReplyFormat(reasoning=True))
    _, deltas = read(choice, tiny, rounds(token_ids, size))
    assert sum(delta.num_reasoning_tokens for delta in deltas) == len(tiny.encode(thought))
    assert "".join(delta.parts.reasoning for delta in deltas) == ("Hm." if reasons else "")
    assert content(deltas) == said


def test_usage(tiny: ChatTokenizer) -> None:
    """Deltas have all that a request is billed for: tokens up to the stop string, and the cache of the first round."""
    token_ids = tiny.encode(f"<think>Hm.</think>{TEXT}")
    script = rounds(token_ids, 2, "length", num_cached=7)  # a replica that takes over has a cache of its own
    choice = replace(PLAIN, form=ReplyFormat(reasoning=True), stop_strings=("rides",))
    for first in (True, False):
        usage = Usage(prompt_tokens=2, meter=Meter("tiny", lambda: 0, lambda: 0))
        reader, deltas = read(replace(choice, first=first), tiny, script)
        for delta in deltas:
            usage.count(delta)
        assert usage.completion_tokens == len(reader.token_ids) < len(token_ids)
        assert usage.reasoning_tokens == len(tiny.encode("<think>Hm.</think>"))
        assert usage.cached_tokens == (7 if first else 0)
        assert usage.acceptance.drafts.total() == usage.by_proposer["model"].drafts.total() == len(deltas)


@pytest.mark.parametrize(
    ("text", "ended_by", "finish_reason"),
    [
        ("the horse", "stop", "stop"),
        ("the horse", "length", "length"),
        ('<tool_call>{"name": "ride", "arguments": {}}</tool_call>', "stop", "tool_calls"),
        ('<tool_call>{"name": "ride", "arguments": {"miles": 1', "length", "length"),
    ],
)
def test_finish_reasons(tiny: ChatTokenizer, text: str, ended_by: FinishReason, finish_reason: str) -> None:
    """A reply that stops after a call ended for it; one that was cut off did not. Only the last delta has a reason."""
    choice = replace(PLAIN, form=ReplyFormat(tools=HERMES))
    _, deltas = read(choice, tiny, rounds(tiny.encode(text), 2, ended_by))
    assert [delta.finish_reason for delta in deltas] == [*[None] * (len(deltas) - 1), finish_reason]


def test_the_time_of_the_text_is_part_of_the_round(tiny: ChatTokenizer) -> None:
    """What reading took is the round's time to emit; nothing else changes."""
    _, [delta] = read(PLAIN, tiny, rounds(tiny.encode(TEXT), 99))
    timed = delta.emitted(0.25)
    assert timed.report.round_.time == replace(ROUND_TIME, emit=0.25)
    assert timed.emitted(0.0) == delta
