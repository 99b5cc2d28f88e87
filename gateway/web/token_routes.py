"""Routes that turn text into tokens and back, as vLLM has them, and count them, as Anthropic has it."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from gateway.generation.planner import Planner
from gateway.requests.messages import CountTokensRequest
from gateway.requests.tokenization import DetokenizeRequest, TokenizeRequest
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.sse import run_in_pool
from gateway.work_pool import WorkPool


def token_routes(
    route_class: type[APIRoute], pool: WorkPool, planner: Planner, tokenizer: ChatTokenizer, max_length: int
) -> APIRouter:
    """Return the routes for a model with a context of `max_length`."""
    routes = APIRouter(route_class=route_class)

    @routes.post("/tokenize")
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        return await run_in_pool(request, pool, tokenized, body)

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountTokensRequest, request: Request) -> Response:
        return _answer({"input_tokens": await run_in_pool(request, pool, planner.count, body)})

    @routes.post("/detokenize")
    async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
        return await run_in_pool(request, pool, detokenized, body)

    def tokenized(body: TokenizeRequest) -> Response:
        token_ids = planner.tokenize(body)
        names = [tokenizer.token_bytes.text(token_id) for token_id in token_ids] if body.return_token_strs else None
        counts = {"count": len(token_ids), "max_model_len": max_length}
        return _answer(counts | {"tokens": token_ids, "token_strs": names})

    def detokenized(body: DetokenizeRequest) -> Response:
        return _answer({"prompt": planner.detokenize(body)})

    return routes


def _answer(body: dict[str, Any]) -> Response:
    return Response(json.dumps(body, ensure_ascii=False, separators=(",", ":")), media_type="application/json")
