"""The HTTP API: OpenAI's, and Anthropic's messages."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.generation.choice import Choice
from gateway.generation.decode_choice import decode_choice
from gateway.generation.delta import Delta
from gateway.generation.interleave import interleave
from gateway.generation.metrics import Meter
from gateway.generation.planner import Planner
from gateway.generation.usage import Usage
from gateway.replies.chat import ChatReply
from gateway.replies.completion import CompletionReply
from gateway.replies.infill import InfillReply
from gateway.replies.messages import MessagesReply
from gateway.replies.reply import Reply
from gateway.replies.responses import ResponsesReply
from gateway.replies.streaming import exhaust, reply_chunks, reply_events, whole_body
from gateway.requests.chat import ChatRequest
from gateway.requests.completion import CompletionRequest
from gateway.requests.generation import GenerationRequest
from gateway.requests.infill import InfillRequest
from gateway.requests.messages import MessagesRequest
from gateway.requests.responses import ResponsesRequest
from gateway.requests.sampling_fields import SamplingFields
from gateway.rounds.decoder import Decoder
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.access import RequireKey, namespace
from gateway.web.body import Bodies, body_route
from gateway.web.cors import add_cors
from gateway.web.deadline import Deadline
from gateway.web.errors import respond
from gateway.web.limit_header import limit_header
from gateway.web.model_routes import model_routes
from gateway.web.page_routes import add_page
from gateway.web.probe_routes import probe_routes
from gateway.web.request_scope import RequestScope
from gateway.web.sse import Api, EventStream, run_in_pool, unless_disconnected
from gateway.web.token_routes import token_routes
from gateway.work_pool import WorkPool
from shared.errors import OutriderError
from shared.version import VERSION

Body = TypeVar("Body", ChatRequest, CompletionRequest, ResponsesRequest, InfillRequest)


def create_app(  # noqa: C901  # a function for each route
    decoder: Decoder, tokenizer: ChatTokenizer, settings: GatewaySettings
) -> FastAPI:
    """Return the ASGI application that serves this decoder."""
    app = _guarded(settings)
    add_page(app)
    pool = WorkPool(settings.max_waiting_work)
    # A prompt may come as token ids, each of which is a value.
    bodies = Bodies(pool, settings.max_body_bytes, settings.max_json_values + decoder.target.max_length)
    app.router.route_class = body_route(bodies)
    planner = Planner(decoder.target, tokenizer, settings)
    meter = Meter(settings.model_names[0], lambda: decoder.num_open, lambda: decoder.num_refused)
    app.include_router(model_routes(planner, decoder.target, settings.model_names))
    app.include_router(probe_routes(decoder.reachable, meter.exposition))
    app.include_router(token_routes(app.router.route_class, pool, planner, tokenizer, decoder.target.max_length))

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        body = named(body)
        choices = await run_in_pool(request, pool, planner.chat, body)
        return await answer(request, body, choices, ChatReply)

    @app.post("/v1/completions")
    async def completion(body: CompletionRequest, request: Request) -> Response:
        body = named(body)
        choices = await run_in_pool(request, pool, planner.completion, body)
        return await answer(request, body, choices, CompletionReply)

    @app.post("/v1/responses")
    async def response(body: ResponsesRequest, request: Request) -> Response:
        body = named(body)
        choice = await run_in_pool(request, pool, planner.response, body)
        usage = Usage.of([choice], meter)
        reply = ResponsesReply(body, choice.params.seed, tokenizer.token_bytes, usage)
        return await answer_in_events(request, body, choice, usage, reply, "responses")

    @app.post("/v1/messages")
    async def message(body: MessagesRequest, request: Request) -> Response:
        choice = await run_in_pool(request, pool, planner.messages, body)
        usage = Usage.of([choice], meter)
        reply = MessagesReply(body, choice.params.seed, usage)
        return await answer_in_events(request, body, choice, usage, reply, "messages")

    @app.post("/infill")
    async def infill(body: InfillRequest, request: Request) -> Response:
        body = named(body)
        choice, prompt = await run_in_pool(request, pool, planner.infill, body)
        usage = Usage.of([choice], meter)
        reply = InfillReply(body, choice, prompt, usage)
        return await answer_in_events(request, body, choice, usage, reply, "infill")

    def named(body: Body) -> Body:
        """Return the request with the model's name, where it gives none."""
        return body if body.model else body.model_copy(update={"model": settings.model_names[0]})

    def decode(
        request: Request, body: SamplingFields, choices: Sequence[Choice], usage: Usage, opened: asyncio.Event
    ) -> AsyncGenerator[Delta]:
        whose = namespace(request, body.cache_salt)
        return interleave(
            [replace(choice, namespace=whose) for choice in choices],
            lambda choice: decode_choice(choice, decoder, tokenizer, usage, opened.set),
            limit=decoder.target.num_slots,
        )

    async def answer_in_events(  # noqa: PLR0917  # what a reply is made of
        request: Request,
        body: ResponsesRequest | MessagesRequest | InfillRequest,
        choice: Choice,
        usage: Usage,
        reply: ResponsesReply | MessagesReply | InfillReply,
        api: Api,
    ) -> Response:
        opened = asyncio.Event()
        events = reply_events(decode(request, body, [choice], usage, opened), reply)
        if body.stream:
            return await EventStream.begin(request, events, opened, api, limit_header(usage))
        async with aclosing(events):
            await unless_disconnected(request, exhaust(events))
        return JSONResponse(reply.body, headers=limit_header(usage))

    async def answer(
        request: Request, body: GenerationRequest, choices: Sequence[Choice], form: type[Reply]
    ) -> Response:
        usage = Usage.of(choices, meter)
        opened = asyncio.Event()
        deltas = decode(request, body, choices, usage, opened)
        reply = form(body, choices, tokenizer.token_bytes)
        if body.stream:
            chunks = reply_chunks(deltas, reply, usage, body)
            return await EventStream.begin(request, chunks, opened, "chunks", limit_header(usage))
        whole = await unless_disconnected(request, whole_body(deltas, reply, usage, len(choices)))
        return JSONResponse(whole, headers=limit_header(usage))

    return app


def _guarded(settings: GatewaySettings) -> FastAPI:
    """Return an application without routes: what every request goes through, and how errors are answered."""
    # A redirect would go to whatever host the client names.
    app = FastAPIOffline(title="Outrider", version=VERSION, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Deadline, seconds=settings.request_timeout_seconds)
    if keys := settings.api_keys:
        app.add_middleware(RequireKey, keys=keys)
    app.add_middleware(RequestScope)
    add_cors(app, settings.cors_origins)
    for kind in (OutriderError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, respond)
    return app
