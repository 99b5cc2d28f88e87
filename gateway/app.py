"""The OpenAI HTTP API."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.choices import Choice, Delta, decode_choice, interleave
from gateway.decoder import Decoder, FinishReason
from gateway.errors import respond
from gateway.meter import Meter
from gateway.planner import Planner
from gateway.replies import ChatReply, CompletionReply, Reply
from gateway.request_scope import RequestScope
from gateway.schemas import ChatRequest, CompletionRequest, GenerationRequest
from gateway.settings import GatewaySettings
from gateway.sse import EventStream, unless_disconnected
from gateway.tokenizer import ChatTokenizer
from gateway.usage import Usage
from shared.errors import OutriderError


def create_app(decoder: Decoder, tokenizer: ChatTokenizer, settings: GatewaySettings) -> FastAPI:
    """Return the ASGI application that serves this decoder."""
    app = FastAPI(title="Outrider", redoc_url=None)
    app.add_middleware(RequestScope)
    for kind in (OutriderError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, respond)
    planner, meter = Planner(decoder, tokenizer, settings), Meter(settings.model_name)
    model = {"id": settings.model_name, "object": "model", "created": int(time.time()), "owned_by": "outrider"}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(meter.exposition(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        planner.check_model(name)
        return model

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        choices = await asyncio.to_thread(planner.chat, body)
        return await answer(request, body, choices, ChatReply)

    @app.post("/v1/completions")
    async def completion(body: CompletionRequest, request: Request) -> Response:
        choices = await asyncio.to_thread(planner.completion, body)
        return await answer(request, body, choices, CompletionReply)

    async def answer(
        request: Request, body: GenerationRequest, choices: Sequence[Choice], form: type[Reply]
    ) -> Response:
        usage = Usage(prompt_tokens=sum(len(choice.prompt_ids) for choice in choices[:: body.n]), meter=meter)
        streams = [decode_choice(choice, decoder, tokenizer, usage) for choice in choices]
        deltas = interleave(streams, limit=decoder.target.num_slots)
        reply = form(body.model, choices[0].params.seed, metrics=body.speculative.metrics)
        if body.stream:
            chunks = _chunks(deltas, reply, usage, body)
            return EventStream(await unless_disconnected(request, anext(chunks)), chunks)
        return JSONResponse(await unless_disconnected(request, _whole(deltas, reply, usage, len(choices))))

    return app


async def _whole(deltas: AsyncGenerator[Delta], reply: Reply, usage: Usage, num_choices: int) -> dict[str, Any]:
    texts = [""] * num_choices
    reasons: list[FinishReason | None] = [None] * num_choices
    async with aclosing(deltas):
        async for delta in deltas:
            texts[delta.index] += delta.text
            reasons[delta.index] = delta.finish_reason
    return reply.body(texts, reasons, usage)


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
                yield reply.opening(delta.index) | no_usage
            for chunk in reply.chunks(delta):
                yield chunk | no_usage
    if body.stream_options.include_usage or body.speculative.metrics:
        yield reply.closing(usage)
