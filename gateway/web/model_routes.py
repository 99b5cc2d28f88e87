"""Routes that describe the model and the gateway, and that tokenize."""

import time
from typing import Any

from fastapi import APIRouter

from gateway.generation.planner import Planner
from gateway.requests.tokenization import DetokenizeRequest, TokenizeRequest
from gateway.text.tokenizer import ChatTokenizer
from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb
from shared.version import VERSION

INEXACT = (
    "Not exact: on the target's processor, rounding makes a token depend on what else runs, "
    "so that the same request may give another text with speculation on or off, another k, or other load."
)


def model_routes(planner: Planner, tokenizer: ChatTokenizer, target: pb.ModelInfo, model_name: str) -> APIRouter:
    """Return the routes of this model."""
    routes = APIRouter()
    model: dict[str, Any] = {
        "id": model_name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "outrider",
        "max_model_len": target.max_length,
        "row_exact": target.row_exact,
    } | ({} if target.row_exact else {"warning": INEXACT})

    @routes.get("/version")
    async def version() -> dict[str, Any]:
        return {
            "version": VERSION,
            "model": target.name,
            "dtype": target.dtype,
            "device": target.device,
            "kernel": target.identity.kernel,
            "row_exact": target.row_exact,
        }

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        planner.check_model(name)
        return model

    @routes.post("/tokenize")
    def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        token_ids = planner.tokenize(body)
        names = [tokenizer.token_bytes.text(token_id) for token_id in token_ids] if body.return_token_strs else None
        return {
            "count": len(token_ids),
            "max_model_len": target.max_length,
            "tokens": token_ids,
            "token_strs": names,
        }

    @routes.post("/detokenize")
    def detokenize(body: DetokenizeRequest) -> dict[str, str]:
        planner.check_model(body.model or model_name)
        for index, token_id in enumerate(body.tokens):
            if not 0 <= token_id < target.vocab_size:
                raise InvalidFieldError(f"tokens.{index}", f"{token_id} is not within 0 to {target.vocab_size - 1}")
        return {"prompt": tokenizer.decode(body.tokens)}

    return routes
