"""Replies as sent: whole, or in chunks or events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from gateway.generation.delta import Delta
from gateway.generation.usage import Usage
from gateway.replies.infill import InfillReply
from gateway.replies.messages import MessagesReply
from gateway.replies.reply import Answer, Reply
from gateway.replies.responses import ResponsesReply
from gateway.requests.generation import GenerationRequest


async def whole_body(deltas: AsyncGenerator[Delta], reply: Reply, usage: Usage, num_choices: int) -> dict[str, Any]:
    """Return the body of a whole reply."""
    answers = [Answer() for _ in range(num_choices)]
    async with aclosing(deltas):
        async for delta in deltas:
            answers[delta.index].add(delta)
    return reply.body(answers, usage)


async def reply_events(
    deltas: AsyncGenerator[Delta], reply: ResponsesReply | MessagesReply | InfillReply
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events of a response or a message; an error before the first token comes before the first event."""
    opened = False
    async with aclosing(deltas):
        async for delta in deltas:
            for event in () if opened else reply.opening(delta):
                yield event
            opened = True
            for event in reply.events(delta):
                yield event


async def exhaust(events: AsyncGenerator[dict[str, Any]]) -> None:
    """Run a reply to its end."""
    async for _ in events:
        pass


async def reply_chunks(
    deltas: AsyncGenerator[Delta], reply: Reply, usage: Usage, body: GenerationRequest
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of a stream; an error before the first token comes before the first chunk."""
    opened: set[int] = set()
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.index not in opened:
                opened.add(delta.index)
                yield reply.opening(delta)
            for chunk in reply.chunks(delta):
                yield chunk
    if body.stream_options.include_usage or body.speculative.metrics:
        yield reply.closing(usage)
