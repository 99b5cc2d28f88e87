"""The choices of a request: each one a sequence that is decoded and read as text."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter

from gateway.decoder import Decoder, FinishReason
from gateway.stop_strings import StopStrings
from gateway.tokenizer import ChatTokenizer
from gateway.usage import Usage
from shared.sampling_params import SamplingParams


@dataclass(frozen=True)
class Choice:
    """What to decode for one choice."""

    index: int
    prompt_ids: list[int]
    params: SamplingParams
    max_tokens: int
    k: int
    stop_strings: tuple[str, ...]


@dataclass(frozen=True)
class Delta:
    """What one round added to the text of a choice; the choice's last one has a finish reason."""

    index: int
    text: str
    finish_reason: FinishReason | None


async def decode_choice(
    choice: Choice, decoder: Decoder, tokenizer: ChatTokenizer, usage: Usage
) -> AsyncGenerator[Delta]:
    """Yield the choice's text round by round. Ends the session as soon as a stop string is complete.

    Raises what `Decoder.decode` raises.
    """
    detokenizer, stops = tokenizer.detokenizer(), StopStrings(choice.stop_strings)
    rounds = decoder.decode(choice.prompt_ids, choice.params, choice.max_tokens, choice.k)
    async with aclosing(rounds):
        async for round_ in rounds:
            started = perf_counter()
            text, num_tokens, finish_reason = "", 0, round_.finish_reason
            for num_tokens, token_id in enumerate(round_.token_ids, 1):  # noqa: B007  # counts up to the stop
                if token_id not in choice.params.stop_token_ids:
                    text += stops.push(detokenizer.push(token_id))
                if stops.found:
                    break
            if finish_reason and not stops.found:
                text += stops.push(detokenizer.flush())
            if stops.found:
                finish_reason = "stop"
            elif finish_reason:
                text += stops.flush()
            usage.count(round_, num_tokens, perf_counter() - started)
            yield Delta(choice.index, text, finish_reason)
            if finish_reason:
                return


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
