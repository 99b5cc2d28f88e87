"""Routes that describe the model and the gateway."""

import time
from typing import Any

from fastapi import APIRouter

from gateway.generation.planner import Planner
from shared.pb import specdec_pb2 as pb
from shared.version import VERSION

INEXACT = (
    "Not exact: on the target's processor, rounding makes a token depend on what else runs, "
    "so that the same request may give another text with speculation on or off, another k, or other load."
)


def model_routes(planner: Planner, target: pb.ModelInfo, model_name: str) -> APIRouter:
    """Return the routes of this model."""
    routes = APIRouter()
    model: dict[str, Any] = {
        "id": model_name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "outrider",
        "max_model_len": target.max_length,
        "dtype": target.dtype,
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

    return routes
