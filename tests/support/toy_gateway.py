"""The gateway's app on a real socket, in front of the toy pair's services."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from gateway.app import create_app
from gateway.rounds.decoder import Decoder
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.server import http_server

MODEL = "toy"
FIM_TOKENS = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"]


@asynccontextmanager
async def serve(decode: Decoder, tokenizer: ChatTokenizer) -> AsyncIterator[str]:
    """Serve the app; yields its URL."""
    settings = GatewaySettings.model_construct(model_name=MODEL, default_k=4, default_lookup_tokens=6, grace_seconds=2)
    server = http_server(create_app(decode, tokenizer, settings), settings)
    listener = socket.create_server(("127.0.0.1", 0))  # connections wait in it until uvicorn is ready
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest_asyncio.fixture(scope="module")
async def toy_url(toy_decoder: Decoder, toy: tuple[Path, Path]) -> AsyncIterator[str]:
    """Serve the toy pair."""
    async with serve(toy_decoder, with_fim_tokens(ChatTokenizer.load(str(toy[0])))) as url:
        yield url


def with_fim_tokens(tokenizer: ChatTokenizer) -> ChatTokenizer:
    """Return the tokenizer with tokens for the middle of a text, for which the toy models have rows to spare."""
    tokenizer._chat.add_special_tokens({"additional_special_tokens": FIM_TOKENS})
    return ChatTokenizer(tokenizer._chat, tokenizer.stop_token_ids)


async def post(url: str, path: str, **fields: Any) -> Any:
    """Post a request to the model and return the body of the answer, which must be a success."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        response = await http.post(path, json={"model": MODEL} | fields)
    assert response.status_code == 200, response.text
    return response.json()
