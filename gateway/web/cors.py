"""Which pages of other sites a browser lets use the API."""

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from gateway.web.limit_header import MAX_TOKENS

LOCAL = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"


def add_cors(app: FastAPI, origins: str) -> None:
    """Answer the browsers' questions for pages of these origins: a list with commas, `local` for this machine's."""
    names = [name.strip() for name in origins.split(",") if name.strip()]
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[name for name in names if name != "local"],
        allow_origin_regex=LOCAL if "local" in names else None,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "request-id", "retry-after", MAX_TOKENS],
    )
