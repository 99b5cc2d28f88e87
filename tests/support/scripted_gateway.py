"""The gateway's app on a real socket, in front of a decoder that plays a script."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import openai
import pytest
import pytest_asyncio
import tiny_tokenizer

from gateway.app import create_app
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import FinishReason, Round
from gateway.rounds.round_time import RoundTime
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.server import http_server
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

MODEL, CONTEXT = "tiny", 120
TEXT = "the horse rides ahead"
ROUND_TIME = RoundTime(draft=1e-3, verify=2e-3, queue=4e-4, sample=6e-4, wire=1e-3)
CHAT: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@dataclass
class ScriptedDecoder:
    """Takes the Decoder's place, and plays a script of rounds and errors in every session."""

    script: Iterable[Round | Exception] = ()
    pause_seconds: float = 0
    opens: bool = False
    """Whether it tells of having opened a session."""
    calls: list[tuple[list[int], SamplingParams, int, int]] = field(default_factory=list)
    lookups: list[tuple[int, list[int]]] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0
    num_refused: int = 0
    num_rounds: int = 0
    target: pb.ModelInfo = field(
        default_factory=lambda: pb.ModelInfo(
            vocab_size=320, max_length=CONTEXT, num_slots=2, max_draft_tokens=8, name=MODEL, row_exact=True
        )
    )

    async def reachable(self) -> bool:
        """Return whether there is anything to play."""
        return bool(self.script)

    async def decode(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        max_tokens: int,
        k: int,
        *,
        num_lookup_tokens: int = 0,
        predicted_ids: Sequence[int] = (),
        forced: bool = True,
        memory: bool = True,
        namespace: str = "",
        opened: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[Round]:
        """Play the script."""
        self.lookups.append((num_lookup_tokens, list(predicted_ids)))
        self.calls.append((list(prompt_ids), params, max_tokens, k))
        self.namespaces.append(namespace)
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            if self.opens:
                opened()
            for step in self.script:
                await asyncio.sleep(self.pause_seconds)
                if isinstance(step, Exception):
                    raise step
                self.num_rounds += 1
                yield step
        finally:
            self.num_open -= 1


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    url: str
    decoder: ScriptedDecoder
    tokenizer: ChatTokenizer

    def play(self, text: str, size: int = 3, finish: FinishReason | None = "stop") -> None:
        """Script this text, `size` tokens per round of which one was not drafted, followed by a stop token."""
        token_ids = [*self.tokenizer.encode(text), *([2] if finish == "stop" else [])]
        parts = [token_ids[start : start + size] for start in range(0, len(token_ids), size)]
        rounds = [Round(part, size, len(part) - 1, None, ROUND_TIME) for part in parts]
        last = rounds.pop()
        self.decoder.script = [*rounds, Round(last.token_ids, 0, 0, finish, ROUND_TIME)]

    async def post(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        """Post a request, a short chat unless the fields say otherwise."""
        body = {"model": MODEL} | ({"messages": CHAT} if "chat" in path else {"prompt": "hi"}) | fields
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.post(path, json=body)

    async def until_idle(self) -> None:
        """Wait until no session is open."""
        async with asyncio.timeout(5):
            while self.decoder.num_open:  # a counter, not an event
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """Return a tiny tokenizer."""
    return ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path_factory.mktemp("tokenizer"))))


@asynccontextmanager
async def serve(tokenizer: ChatTokenizer, decoder: ScriptedDecoder, **settings: Any) -> AsyncIterator[Gateway]:
    """Run the server on a free port, with these settings of the gateway."""
    own: dict[str, Any] = {"model_name": MODEL, "default_k": 4, "default_lookup_tokens": 6, "grace_seconds": 2}
    given = GatewaySettings.model_construct(**own | settings)
    server = http_server(create_app(cast("Decoder", decoder), tokenizer, given), given)
    listener = socket.create_server(("127.0.0.1", 0))  # connections wait in it until uvicorn is ready
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)  # what a client does not read is soon in the way
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", decoder, tokenizer)
    server.should_exit = True
    await serving


@pytest_asyncio.fixture(scope="module")
async def scripted_server(tiny: ChatTokenizer) -> AsyncIterator[Gateway]:
    """Serve a decoder that plays scripts."""
    async with serve(tiny, ScriptedDecoder()) as gateway:
        yield gateway


@pytest_asyncio.fixture
async def scripted(scripted_server: Gateway) -> AsyncIterator[Gateway]:
    """Return the gateway with its decoder reset, and check that no test leaves a session open."""
    vars(scripted_server.decoder).update(vars(ScriptedDecoder()))
    scripted_server.play(TEXT)
    yield scripted_server
    await scripted_server.until_idle()


@pytest_asyncio.fixture
async def openai_client(scripted: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return OpenAI's own client."""
    async with openai.AsyncOpenAI(base_url=f"{scripted.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def events(response: httpx.Response) -> list[Any]:
    """Return the events of a stream; `[DONE]` stays a string."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error in a response, which must have OpenAI's form."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return cast("dict[str, Any]", error)
