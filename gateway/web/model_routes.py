"""Routes that describe the model and the gateway."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from gateway.generation.planner import Planner
from shared.pb import specdec_pb2 as pb
from shared.version import VERSION

INEXACT = (
    "Not exact: on the target's processor, rounding makes a token depend on what else runs, "
    "so that the same request may give another text with speculation on or off, another k, or other load."
)


def model_routes(planner: Planner, target: pb.ModelInfo, names: Sequence[str]) -> APIRouter:
    """Return the routes of the model of these names, in the forms of OpenAI and of Anthropic."""
    routes = APIRouter()
    started = int(time.time())

    def described(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": started,
            "owned_by": "outrider",
            "max_model_len": target.max_length,
            "dtype": target.dtype,
            "row_exact": target.row_exact,
            "type": "model",
            "display_name": name,
            "created_at": datetime.fromtimestamp(started, UTC).isoformat(),
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
            "graphs": _graphs(target.graphs) if target.HasField("graphs") else None,
        }

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        pages = {"has_more": False, "first_id": names[0], "last_id": names[-1]}
        # Codex asks for models of a kind of its own, and does with its defaults where there is none.
        return {"object": "list", "data": [described(name) for name in names], "models": []} | pages

    @routes.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        planner.check_model(name)
        return described(name)

    return routes


def _graphs(choice: pb.GraphChoice) -> dict[str, Any]:
    return {
        "wide_prefill": choice.wide_prefill,
        "prefill_us": choice.prefill_us,
        "verify_us": choice.verify_us,
        "row_counts": list(choice.row_counts),
        "larger_buckets": choice.larger_buckets,
        "draws": choice.draws,
    }
