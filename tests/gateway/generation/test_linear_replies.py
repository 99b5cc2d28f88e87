"""What is made of a reply takes time in proportion to its length, whatever a model writes."""

import gc
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, repeat
from time import thread_time

import pytest
import scripted_gateway
from scripted_gateway import CHAT, MODEL, ROUND_TIME

from gateway.generation.choice import Choice
from gateway.generation.metrics import Meter
from gateway.generation.reply_reader import ReplyReader
from gateway.generation.usage import Usage
from gateway.parsing.formats.hermes import HERMES
from gateway.parsing.formats.known import FORMATS
from gateway.parsing.formats.llama import LLAMA
from gateway.parsing.reply_format import ReplyFormat
from gateway.parsing.reply_parser import ReplyParser
from gateway.replies.chat import ChatReply
from gateway.replies.reply import Answer
from gateway.replies.responses import ResponsesReply
from gateway.requests.chat import ChatRequest
from gateway.requests.responses import ResponsesRequest
from gateway.requests.tool_fields import Function
from gateway.rounds.round import Round
from gateway.text.stop_strings import StopStrings
from gateway.text.tokenizer import ChatTokenizer
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

tiny = scripted_gateway.tiny  # assigned, for pytest looks for fixtures among a module's names

HERMES_TOOLS, LLAMA_TOOLS = ReplyFormat(tools=HERMES), ReplyFormat(tools=LLAMA)
BARE = ReplyFormat(tools=HERMES, bare=["f"])
OPENINGS = [
    (ReplyFormat(reasoning=True), ""),
    (ReplyFormat(reasoning=True), "<think>a"),
    (HERMES_TOOLS, "a"),
    (HERMES_TOOLS, "<tool_call>"),
    (HERMES_TOOLS, '<tool_call>{"name": "f", "arguments": {"a": '),
    (HERMES_TOOLS, '<tool_call>{"name": "'),
    (LLAMA_TOOLS, ""),
    (LLAMA_TOOLS, '{"name": "f", "parameters": {}}'),
    (BARE, ""),
    (BARE, '{"name": "f", "arguments": {"a": '),
    (BARE, "So:\n```json\n"),
    (BARE, '{"name": "f", "arguments": {}}'),
    (HERMES_TOOLS, '<tool_call>{"name": "f", "arguments": {}}'),
    (HERMES_TOOLS, '<tool_call>{"name": "f", "arguments": {"a": 1, /'),
]
OPENINGS += [
    (ReplyFormat(tools=FORMATS[name], functions=[Function.model_validate({"name": "f"})]), opening)
    for name, opening in [
        ("qwen3_coder", "<tool_call>"),
        ("qwen3_coder", "<function=f>\n<parameter=a>\n"),
        ("qwen3_coder", "<function=f>\n"),
        ("glm45", "<tool_call>"),
        ("glm45", "<tool_call>f<arg_key>a</arg_key><arg_value>"),
        ("mistral", "[TOOL_CALLS]"),
        ("mistral", "[TOOL_CALLS]f[ARGS]{}"),
        ("deepseek_v3", "<｜tool▁calls▁begin｜>"),
        ("llama3_json", "<|python_tag|>"),
    ]
]
FILLERS = (" ", "{", "[", "<", "\\", '"', "} ", "<tool_call>", "</think", "```", "é", ",")
SHORT, TIMES = 1000, 8


def seconds(work: Callable[[int], object], length: int) -> float:
    """Return the CPU time of some work of this length."""
    started = thread_time()
    work(length)
    return thread_time() - started


def is_linear(work: Callable[[int], object]) -> bool:
    """Return whether eight times the length takes far less than the 64 times as long of what is quadratic."""
    gc.disable()  # its own time grows with what other tests have left
    try:
        return any(seconds(work, SHORT * TIMES) < 16 * seconds(work, SHORT) for _ in range(3))
    finally:
        gc.enable()


@pytest.mark.parametrize(("form", "opening"), OPENINGS)
def test_parsers(form: ReplyFormat, opening: str) -> None:
    """Claim: spaces, brackets, quotes and half-open tags without end take linear time in every parser."""
    for filler in FILLERS:

        def parse(length: int, filler: str = filler) -> None:
            parser = ReplyParser(form)
            parser.push(opening, last=False)
            for _ in range(length):
                parser.push(filler, last=False)
            parser.push("", last=True)

        assert is_linear(parse), filler


@pytest.mark.parametrize("text", ["the", "é", "<|im_start|>"])
def test_replies(tiny: ChatTokenizer, text: str) -> None:
    """Claim: scored tokens, bytes that never are a character and special tokens become a reply in linear time."""
    token_id = tiny.encode(text)[-1]
    params = SamplingParams(logprobs=True)
    choice = Choice(0, [5], params, 9999, None, None, stop_strings=(), form=ReplyFormat(reasoning=True, tools=HERMES))
    round_ = Round([token_id], 0, 0, None, ROUND_TIME, logprobs=[pb.TokenLogprobs()])

    def reply(length: int) -> None:
        usage = Usage(prompt_tokens=1, meter=Meter(MODEL, lambda: 0, lambda: 0))
        chat = ChatReply(ChatRequest.model_validate({"model": MODEL, "messages": CHAT}), [choice], tiny.token_bytes)
        request = ResponsesRequest.model_validate({"model": MODEL, "input": "hi"})
        response = ResponsesReply(request, 1, tiny.token_bytes, usage)
        reader, answer = ReplyReader(choice, tiny), Answer()
        chat.opening(reader.read(round_))
        for script in repeat(round_, length), [replace(round_, finish_reason="stop")]:
            for one in script:
                delta = reader.read(one)
                usage.count(delta)
                answer.add(delta)
                deque(chain(chat.chunks(delta), response.events(delta)), maxlen=0)
        chat.body([answer], usage)

    assert is_linear(reply)


@pytest.mark.parametrize("stop", ["a" * 5000 + "b", "ab" * 2500 + "b", "a"])
def test_stop_strings(stop: str) -> None:
    """Claim: a text that begins a stop string everywhere is searched in linear time."""

    def search(length: int) -> None:
        stops = StopStrings([stop + str(number) for number in range(4)])
        for _ in range(length * 4):
            stops.push("a")

    assert is_linear(search)
