"""The choices of a request: each one a sequence that is decoded and read as text."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from itertools import zip_longest
from time import perf_counter

from gateway.generation.choice import Choice, Delta, TokenLogprobs
from gateway.generation.round_report import RoundReport
from gateway.generation.usage import Usage, num_in_reply
from gateway.parsing.reply_parser import ReplyParser
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from gateway.text.reply_text import ReplyText
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError


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
