"""Decodes a choice of a request and reads it as text."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from time import perf_counter

from gateway.generation.choice import Choice
from gateway.generation.common_tokens import num_in_reply
from gateway.generation.delta import Delta
from gateway.generation.reply_reader import ReplyReader
from gateway.generation.usage import Usage
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError


async def decode_choice(
    choice: Choice,
    decoder: Decoder,
    tokenizer: ChatTokenizer,
    usage: Usage,
    opened: Callable[[], object] = lambda: None,
) -> AsyncGenerator[Delta]:
    """Yield the choice's text round by round. Ends the session as soon as a stop string is complete.

    `opened` is called when the target has begun it.

    Raises what `Decoder.decode` raises.
    """
    reader = ReplyReader(choice, tokenizer)
    async with aclosing(_rounds(choice, decoder, opened)) as rounds:
        async for round_ in rounds:
            started = perf_counter()
            delta = reader.read(round_)
            delta = delta.emitted(perf_counter() - started)
            usage.count(delta)
            yield delta
            if delta.finish_reason:
                break
    if choice.predicted_ids:
        accepted = await asyncio.to_thread(num_in_reply, choice.predicted_ids, reader.token_ids)
        usage.count_prediction(len(choice.predicted_ids), accepted)


async def _rounds(choice: Choice, decoder: Decoder, opened: Callable[[], object]) -> AsyncGenerator[Round]:
    """Yield the choice's rounds. An error in its grammar is reported for the field that asked for it."""
    decoding = decoder.decode(
        choice.prompt_ids,
        choice.params,
        max(choice.max_tokens, 1),
        choice.k,
        num_lookup_tokens=choice.num_lookup_tokens,
        predicted_ids=choice.predicted_ids,
        forced=choice.forced,
        memory=choice.memory,
        namespace=choice.namespace,
        opened=opened,
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
