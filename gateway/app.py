"""The OpenAI HTTP API."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.choices import Choice, Delta, decode_choice, interleave
from gateway.decoder import Decoder
from gateway.errors import respond
from gateway.meter import Meter
from gateway.model_routes import model_routes
from gateway.page_routes import add_page
from gateway.planner import Planner
from gateway.replies import Answer, ChatReply, CompletionReply, Reply
from gateway.request_scope import RequestScope
from gateway.responses_reply import ResponsesReply
from gateway.responses_request import ResponsesRequest
from gateway.schemas import ChatRequest, CompletionRequest, GenerationRequest
from gateway.settings import GatewaySettings
from gateway.sse import EventStream, unless_disconnected
from gateway.tokenizer import ChatTokenizer
from gateway.usage import Usage
from shared.errors import OutriderError
from shared.version import VERSION


def create_app(decoder: Decoder, tokenizer: ChatTokenizer, settings: GatewaySettings) -> FastAPI:
    """Return the ASGI application that serves this decoder."""
    app = FastAPIOffline(title="Outrider", version=VERSION, redoc_url=None)
    app.add_middleware(RequestScope)
    for kind in (OutriderError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, respond)
    add_page(app)
    planner = Planner(decoder, tokenizer, settings)
    meter = Meter(settings.model_name, lambda: decoder.num_open, lambda: decoder.num_refused)
    app.include_router(model_routes(planner, tokenizer, decoder.target, settings.model_name))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(meter.exposition(), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        choices = await asyncio.to_thread(planner.chat, body)
        return await answer(request, body, choices, ChatReply)

    @app.post("/v1/completions")
    async def completion(body: CompletionRequest, request: Request) -> Response:
        choices = await asyncio.to_thread(planner.completion, body)
        return await answer(request, body, choices, CompletionReply)

    @app.post("/v1/responses")
    async def response(body: ResponsesRequest, request: Request) -> Response:
        choice = await asyncio.to_thread(planner.response, body)
        usage = Usage(prompt_tokens=len(choice.prompt_ids), meter=meter)
        reply = ResponsesReply(body, choice.params.seed, tokenizer.token_bytes, usage)
        events = _events(decode_choice(choice, decoder, tokenizer, usage), reply)
        if body.stream:
            return EventStream(await unless_disconnected(request, anext(events)), events, named=True)
        async with aclosing(events):
            await unless_disconnected(request, _exhaust(events))
        return JSONResponse(reply.body)

    async def answer(
        request: Request, body: GenerationRequest, choices: Sequence[Choice], form: type[Reply]
    ) -> Response:
        usage = Usage(prompt_tokens=sum(len(choice.prompt_ids) for choice in choices if choice.first), meter=meter)
        streams = [decode_choice(choice, decoder, tokenizer, usage) for choice in choices]
        deltas = interleave(streams, limit=decoder.target.num_slots)
        reply = form(body, choices[0].params.seed, tokenizer.token_bytes)
        if body.stream:
            chunks = _chunks(deltas, reply, usage, body)
            return EventStream(await unless_disconnected(request, anext(chunks)), chunks)
        return JSONResponse(await unless_disconnected(request, _whole(deltas, reply, usage, len(choices))))

    return app


async def _whole(deltas: AsyncGenerator[Delta], reply: Reply, usage: Usage, num_choices: int) -> dict[str, Any]:
    answers = [Answer() for _ in range(num_choices)]
    async with aclosing(deltas):
        async for delta in deltas:
            answers[delta.index].add(delta)
    return reply.body(answers, usage)


async def _events(deltas: AsyncGenerator[Delta], reply: ResponsesReply) -> AsyncGenerator[dict[str, Any]]:
    """Yield the events of a response; an error before the first token comes before the first event."""
    opened = False
    async with aclosing(deltas):
        async for delta in deltas:
            for event in () if opened else reply.opening(delta):
                yield event
            opened = True
            for event in reply.events(delta):
                yield event


async def _exhaust(events: AsyncGenerator[dict[str, Any]]) -> None:
    async for _ in events:
        pass


async def _chunks(
    deltas: AsyncGenerator[Delta], reply: Reply, usage: Usage, body: GenerationRequest
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of a stream; an error before the first token comes before the first chunk."""
    no_usage = {"usage": None} if body.stream_options.include_usage else {}
    opened: set[int] = set()
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.index not in opened:
                opened.add(delta.index)
                yield reply.opening(delta) | no_usage
            for chunk in reply.chunks(delta):
                yield chunk | no_usage
    if body.stream_options.include_usage or body.speculative.metrics:
        yield reply.closing(usage)
