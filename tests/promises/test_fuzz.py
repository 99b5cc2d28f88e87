"""Whatever is sent, over HTTP or gRPC: one clear answer, no process ends, no slot is lost, no other text changes.

The short form sends the same inputs each time. `make fuzz SEED=7 INPUTS=25000` draws others, as many of each kind.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

import grpc
import httpx
import pytest
import schemathesis
import structlog
import watched_stack
from hostile_grpc import draft_requests, sessions, verify_requests
from hostile_http import HostileRequest, hostile_requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from vital_signs import Seen
from watched_stack import Stack, watched

from gateway.web.errors import MAX_MESSAGE
from shared.pb import specdec_pb2_grpc as pb_grpc

log = structlog.get_logger()

SEED = int(os.environ.get("FUZZ_SEED", "0"))
BATCH = 8  # inputs at once
NUM_BATCHES = int(os.environ.get("FUZZ_INPUTS", "160")) // BATCH
TIMED = NUM_BATCHES > 1000  # other tests run beside the short form
STATUSES: Counter[int] = Counter()
CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DATA_LOSS,
}


async def _check(http: httpx.AsyncClient, request: HostileRequest) -> None:
    """Send a request; the answer must be a success or one error in OpenAI's form, and not the server's fault."""
    headers = {"content-type": request.content_type}
    answer = await http.request(request.method, request.path, content=request.body, headers=headers)
    STATUSES[answer.status_code] += 1
    assert answer.status_code < 500, (request, answer.text)
    if answer.status_code >= 400 and request.method != "HEAD":
        assert 0 < len(answer.json()["error"]["message"]) <= MAX_MESSAGE + 1, request
    if answer.headers["content-type"].startswith("text/event-stream"):
        for line in answer.text.splitlines():
            if line.startswith("data: {"):
                error = json.loads(line.removeprefix("data: ")).get("error")
                assert not (error and error["type"] == "internal_error"), error


stack, usual = watched_stack.stack, watched_stack.usual  # pytest looks for fixtures among a module's names


@pytest.fixture
async def watching(stack: Stack, usual: Seen) -> AsyncIterator[None]:
    """Watch the services throughout a test."""
    async with watched(stack, usual, timed=TIMED):
        yield
    log.info("fuzzed", statuses=dict(STATUSES))


Test = TypeVar("Test", bound=Callable[..., Any])


def fuzz(share: int = 1, **strategies: Any) -> Callable[[Test], Test]:
    """Decorate a test that takes drawn inputs, one `share`-th of as many as are asked for."""

    def decorate(test: Test) -> Test:
        checks = list(HealthCheck)
        bounds = settings(
            max_examples=max(NUM_BATCHES // share, 1),
            phases=[Phase.generate],  # a failure names its input: nothing to shrink
            deadline=None,
            database=None,
            suppress_health_check=checks,
        )
        return cast("Test", pytest.mark.timeout(120 + NUM_BATCHES * 10)(seed(SEED)(bounds(given(**strategies)(test)))))

    return decorate


@pytest.mark.usefixtures("watching")
@fuzz(batch=st.lists(hostile_requests(), min_size=BATCH, max_size=BATCH))
async def test_http(stack: Stack, batch: list[HostileRequest]) -> None:
    """Bodies of all routes with fields of any value: no 500, and an innocent request beside them keeps its text."""
    async with httpx.AsyncClient(base_url=stack.url, timeout=60) as http:
        await asyncio.gather(*(_check(http, request) for request in batch))


@pytest.fixture(scope="module")
def cases(stack: Stack) -> st.SearchStrategy[schemathesis.Case[Any]]:
    """Return what schemathesis makes of the gateway's own OpenAPI schema."""
    schema = schemathesis.openapi.from_url(f"{stack.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    strategies = [one.as_strategy(generation_mode=mode) for one in operations for mode in GenerationMode]
    return st.sampled_from(strategies).flatmap(lambda one: one)  # `one_of` would build them all, which takes 20 s


@pytest.mark.usefixtures("watching")
@fuzz(share=8, data=st.data())
async def test_schema(cases: st.SearchStrategy[schemathesis.Case[Any]], data: st.DataObject) -> None:
    """What schemathesis makes of the gateway's own OpenAPI schema, valid or not, of all its operations."""
    batch = [data.draw(cases) for _ in range(BATCH)]
    answers = await asyncio.gather(*(asyncio.to_thread(one.call) for one in batch))
    for one, answer in zip(batch, answers, strict=True):
        STATUSES[answer.status_code] += 1
        assert answer.status_code < 500, (one.as_curl_command(), answer.text)


async def _outcome(call: Any) -> grpc.StatusCode:
    try:
        async with asyncio.timeout(60):
            async for _ in call:
                pass
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        if len(details) > 2000:
            pytest.fail(details)
        # grpc's client says so of a stream that the server ended while the client was writing
        return grpc.StatusCode.OK if details == "Internal error from Core" else error.code()
    return grpc.StatusCode.OK


async def _send(messages: list[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


@pytest.mark.usefixtures("watching")
@pytest.mark.parametrize("number", [0, 1], ids=["target", "draft"])
@fuzz(data=st.data())
async def test_grpc(stack: Stack, number: int, data: st.DataObject) -> None:
    """Streams of any messages: a status that says whose fault it is, and the innocent request keeps its text."""
    valid = (verify_requests, draft_requests)[number]
    batch = data.draw(st.lists(sessions(valid), min_size=BATCH, max_size=BATCH))
    channel = grpc.aio.insecure_channel(stack.services[number].address)
    async with channel:
        call = pb_grpc.TargetServiceStub(channel).Verify if number == 0 else pb_grpc.DraftServiceStub(channel).Draft
        codes = await asyncio.gather(*(_outcome(call(_send(messages))) for messages in batch))
    for code, messages in zip(codes, batch, strict=True):
        assert code in CODES, messages
