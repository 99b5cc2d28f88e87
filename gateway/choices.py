"""The choices of a request: each one a sequence that is decoded and read as text."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import zip_longest
from time import perf_counter

from gateway.decoder import Decoder, Round
from gateway.prediction_usage import num_in_reply
from gateway.reply_format import PLAIN, Parts, ReplyFinish, ReplyFormat, ReplyParser
from gateway.reply_text import ReplyText
from gateway.round_report import RoundReport
from gateway.token_logprobs import TokenLogprobs
from gateway.tokenizer import ChatTokenizer
from gateway.usage import Usage
from shared.errors import InvalidFieldError
from shared.sampling_params import SamplingParams


@dataclass(frozen=True)
class Choice:
    """What to decode for one choice."""

    index: int
    prompt_ids: list[int]
    params: SamplingParams
    max_tokens: int
    k: int | None
    """How many tokens to ask of the draft model in a round; None is as many as pay."""
    num_lookup_tokens: int | None
    """How many to look up, likewise."""
    stop_strings: tuple[str, ...]
    predicted_ids: Sequence[int] = ()
    include_stop: bool = False
    """Whether a stop string, or the text of a stop token, is part of the reply."""
    form: ReplyFormat = PLAIN
    grammar_field: str = ""
    """The field of the request that asks for a grammar."""
    echo: str = ""
    """What the reply begins with, before the first token."""
    first: bool = True
    """Whether it is the first one of its prompt, for which the prompt is counted."""


@dataclass(frozen=True)
class Delta:
    """What one round added to a choice; the choice's last one has a finish reason."""

    index: int
    parts: Parts
    finish_reason: ReplyFinish | None
    logprobs: list[TokenLogprobs]
    """One a token, where they were asked for."""
    report: RoundReport
    """The round itself."""


async def decode_choice(
    choice: Choice, decoder: Decoder, tokenizer: ChatTokenizer, usage: Usage
) -> AsyncGenerator[Delta]:
    """Yield the choice's text round by round. Ends the session as soon as a stop string is complete.

    Raises what `Decoder.decode` raises.
    """
    reply = ReplyText(tokenizer, choice.params, choice.stop_strings, include_stop=choice.include_stop)
    rounds = _rounds(choice, decoder)
    parser = ReplyParser(choice.form)
    reply_ids: list[int] = []
    echo = choice.echo
    async with aclosing(rounds):
        async for round_ in rounds:
            started = perf_counter()
            finish_reason = round_.finish_reason
            if choice.first and not reply_ids:
                usage.cached_tokens += round_.num_cached
            of_prompt = choice.params.prompt_logprobs and not reply_ids
            logprobs, texts = _of_prompt(choice, round_, tokenizer) if of_prompt else [], list[str]()
            for token_id, told in zip_longest(round_.token_ids, round_.logprobs):
                if told and reply.shows(token_id):
                    logprobs.append(TokenLogprobs(token_id, len(choice.echo) + reply.num_chars, told))
                texts.append(reply.push(token_id))
                if reply.ended:
                    break
            if finish_reason and texts and not reply.ended:
                texts[-1] += reply.flush()
            if reply.ended:
                finish_reason = "stop"
            reply_ids += round_.token_ids[: len(texts)]
            thought = parser.reasoning_tokens
            parts = parser.push(*texts, last=bool(finish_reason))
            parts.content = echo + parts.content
            report = RoundReport(replace(round_, time=round_.time.emitted(perf_counter() - started)), texts)
            usage.count(report.round_, len(texts), parser.reasoning_tokens - thought)
            yield Delta(choice.index, parts, parser.finish_reason(finish_reason), logprobs, report)
            echo = ""
            if finish_reason:
                break
    if choice.predicted_ids:
        accepted = await asyncio.to_thread(num_in_reply, choice.predicted_ids, reply_ids)
        usage.count_prediction(len(choice.predicted_ids), accepted)


async def _rounds(choice: Choice, decoder: Decoder) -> AsyncGenerator[Round]:
    """Yield the choice's rounds. What is wrong with its grammar is wrong with the field that asked for it."""
    decoding = decoder.decode(
        choice.prompt_ids,
        choice.params,
        max(choice.max_tokens, 1),
        choice.k,
        num_lookup_tokens=choice.num_lookup_tokens,
        predicted_ids=choice.predicted_ids,
    )
    try:
        async with aclosing(decoding) as rounds:
            async for round_ in rounds:
                yield (
                    round_ if choice.max_tokens else replace(round_, token_ids=[], logprobs=[], finish_reason="length")
                )
    except InvalidFieldError as error:
        if choice.params.grammar and error.field == choice.params.grammar.kind:
            raise InvalidFieldError(choice.grammar_field, error.problem) from error
        raise


def _of_prompt(choice: Choice, round_: Round, tokenizer: ChatTokenizer) -> list[TokenLogprobs]:
    """Return what the first round tells of the prompt's tokens."""
    detokenizer, told = tokenizer.detokenizer(), []
    for token_id, logprobs in zip(choice.prompt_ids, [None, *round_.prompt_logprobs], strict=True):
        told.append(TokenLogprobs(token_id, detokenizer.num_chars, logprobs))
        detokenizer.push(token_id)
    return told


async def interleave(streams: Sequence[AsyncGenerator[Delta]], limit: int) -> AsyncGenerator[Delta]:
    """Yield what the streams yield as it comes, with at most `limit` of them under way.

    The first error ends them all and is raised. Closing this closes them.
    """
    # Unbounded, so that a client who reads slowly does not hold a slot: what waits is text, no longer than max_tokens.
    queue: asyncio.Queue[Delta | None] = asyncio.Queue()
    free = asyncio.Semaphore(limit)

    async def pump(stream: AsyncGenerator[Delta]) -> None:
        async with free, aclosing(stream):
            async for delta in stream:
                queue.put_nowait(delta)

    async def pump_all() -> None:
        try:
            async with asyncio.TaskGroup() as pumps:
                for stream in streams:
                    pumps.create_task(pump(stream))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            queue.put_nowait(None)

    pumping = asyncio.create_task(pump_all())
    try:
        while (delta := await queue.get()) is not None:
            yield delta
        await pumping
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
