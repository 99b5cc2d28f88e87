"""One name, one model: replicas with another model are refused, and a reply never goes on with other arithmetic."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import httpx
import pytest
from mix import trial_settings
from services import CONNECTING_SECONDS, ROOT, Service, StartService, service
from structlog.testing import capture_logs
from test_bad_input import outcome, send, target_open, verify
from test_overhead import scrape
from toy_gateway import post, serve

from gateway.__main__ import main
from gateway.clients.draft.client import DraftClient
from gateway.clients.errors import TargetUnavailableError
from gateway.clients.target.client import TargetClient
from gateway.clients.target.replica_search import PAUSES_SECONDS
from gateway.clients.target.stream import VerifyCall
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.model_routes import INEXACT
from scripts.stack import free_port
from shared.errors import ModelError
from shared.model.checkpoints.toy_pair import make_toy_pair
from shared.model.checkpoints.weights_hash import weights_hash
from shared.model.loading.load_engine import load_engine
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPENED
from shared.sampling_params import SamplingParams
from target_service.servicer import TargetServicer

REFUSED = "target replica refused: it is not what this gateway started with"
ANY = pb.ModelIdentity()
COUNTER = ("outrider_targets_refused_total", "")
PROMPT, PARAMS, MAX_TOKENS = list(range(40, 60)), SamplingParams(seed=3), 48
COMPLETION: dict[str, Any] = {"prompt": "A token", "max_tokens": 24, "seed": 3}


@pytest.fixture(scope="module")
def other_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a target with the same shape and tokenizer but different weights."""
    folder = tmp_path_factory.mktemp("other")
    make_toy_pair(folder, seed=21)
    return folder / "target"


@asynccontextmanager
async def gateway_of(
    *addresses: str, one_identity: bool = False, identity: pb.ModelIdentity = ANY, **info_of: object
) -> AsyncIterator[Decoder]:
    """Decode plainly with these replicas; the gateway starts with one that reports these fields."""
    client = TargetClient(f"ipv4:{','.join(addresses)}", one_identity=one_identity)
    async with asyncio.timeout(30):
        while True:
            info = await client.model_info(30)  # of the next replica
            as_told = all(getattr(info, name) == value for name, value in info_of.items())
            if as_told and all(getattr(info.identity, field.name) == value for field, value in identity.ListFields()):
                break
            await asyncio.sleep(0.05)
    await asyncio.sleep(CONNECTING_SECONDS)
    draft = DraftClient("127.0.0.1:1", info)
    yield Decoder(client, info, draft, deadline_seconds=1)
    await draft.close()
    await client.close()


@asynccontextmanager
async def replica(folder: Path, kernel: str, **told: Any) -> AsyncIterator[str]:
    """Serve the model in this process, reporting these fields: the seam for processors that are not here."""
    settings = trial_settings(folder, device="cpu", max_length=2048, max_draft_tokens=16)
    engine = await load_engine(folder, settings)
    engine.info.identity.weights, engine.info.identity.kernel = weights_hash(folder), kernel
    for field, value in told.items():
        setattr(engine.info, field, value)
    engine.info.identity.row_exact = engine.info.row_exact
    server, running = grpc.aio.server(), asyncio.create_task(engine.run())
    pb_grpc.add_TargetServiceServicer_to_server(TargetServicer(engine, settings), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
    running.cancel()


async def tokens(rounds: AsyncGenerator[Round]) -> list[int]:
    """Return what the rounds commit."""
    return [token_id async for done in rounds for token_id in done.token_ids]


@pytest.mark.parametrize("differs", ["weights", "dtype"])
async def test_another_model_behind_the_name(
    start: StartService, toy: tuple[Path, Path], other_toy: Path, tmp_path: Path, differs: str
) -> None:
    """Every request is served by the model that the gateway started with; when that is gone, no request is served."""
    settings = {"weights": (other_toy, "float32"), "dtype": (toy[0], "bfloat16")}[differs]
    wrong = start("target_service", model=settings[0], dtype=settings[1]).address
    identity = pb.ModelIdentity(weights=weights_hash(toy[0]), dtype="float32")
    with service("target_service", tmp_path / "right.log", model=toy[0], dtype="float32") as right:
        tokenizer = ChatTokenizer.load(str(toy[0]))
        async with gateway_of(right.address) as alone, serve(alone, tokenizer) as url:
            expected = await post(url, "/v1/completions", **COMPLETION)
        async with gateway_of(right.address, wrong, identity=identity) as decode, serve(decode, tokenizer) as url:
            with capture_logs() as logs:
                got = await asyncio.gather(*(post(url, "/v1/completions", **COMPLETION) for _ in range(12)))
                assert {reply["choices"][0]["text"] for reply in got} == {expected["choices"][0]["text"]}
                assert {reply["system_fingerprint"] for reply in got} == {expected["system_fingerprint"]}
                refused = (await asyncio.to_thread(scrape, url))[COUNTER]
                assert refused > 0
                right.kill()
                started = time.monotonic()
                async with httpx.AsyncClient(base_url=url, timeout=60) as http:
                    answer = await http.post("/v1/completions", json={"model": "toy"} | COMPLETION)
            assert time.monotonic() - started < sum(PAUSES_SECONDS) + 5
            assert answer.status_code == 503
            message = answer.json()["error"]["message"]
            assert message.startswith("no replica of the target serves what this gateway started with: ")
            assert message.endswith(f"differ in {differs}")
            assert (await asyncio.to_thread(scrape, url))[COUNTER] > refused
    assert [log["differs_in"] for log in logs if log["event"] == REFUSED] == [[differs]]


@pytest.mark.parametrize(
    ("told", "differs"),
    [
        ({"max_draft_tokens": 2}, "max_draft_tokens"),
        ({"max_length": 64}, "max_length"),
        ({"row_exact": False}, "row_exact"),
    ],
)
async def test_a_lesser_replica(
    start: StartService, toy: tuple[Path, Path], told: dict[str, Any], differs: str
) -> None:
    """A gateway with a better target sends nothing to a replica with lower limits or inexact rows."""
    right = start("target_service", model=toy[0], dtype="float32").address
    best: dict[str, Any] = {"max_draft_tokens": 16, "max_length": 2048, "row_exact": True}
    async with replica(toy[0], "other", **told) as lesser, gateway_of(right, lesser, **best) as decode:
        with capture_logs() as logs:
            for max_tokens in (2, 60) * 3:
                rounds = decode.decode(PROMPT, PARAMS, max_tokens, 0)
                assert (await anext(rounds)).identity.kernel != "other"
                await rounds.aclose()
        assert decode.num_refused > 0
    assert {name for log in logs if log["event"] == REFUSED for name in log["differs_in"]} == {differs}


async def begin(decode: Decoder, kernel: str) -> tuple[AsyncGenerator[Round], list[int]]:
    """Open sessions until one is at a replica with this kernel; return its remaining rounds and its first tokens."""
    while True:
        rounds = decode.decode(PROMPT, PARAMS, MAX_TOKENS, 0)
        first = await anext(rounds)
        if first.identity.kernel == kernel:
            return rounds, first.token_ids
        await rounds.aclose()


async def test_a_reply_keeps_to_one_identity(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A lost session skips replicas that might give other tokens, and goes on only at one that gives the same."""
    async with AsyncExitStack() as fleet:
        lost = [
            fleet.enter_context(service("target_service", tmp_path / f"{name}.log", model=toy[0], dtype="float32"))
            for name in "ab"
        ]
        other = await fleet.enter_async_context(replica(toy[0], "other"))
        addresses = [*(one.address for one in lost), other]
        async with gateway_of(lost[0].address) as decode:
            expected = await tokens(decode.decode(PROMPT, PARAMS, MAX_TOKENS, 0))
            kernel = decode.target.identity.kernel
        decode = await fleet.enter_async_context(gateway_of(*addresses))
        sessions = [await begin(decode, kernel) for _ in range(4)]  # on both replicas with that kernel
        lost[0].kill()
        assert [first + await tokens(rounds) for rounds, first in sessions] == [expected] * 4
        rounds, first = await begin(decode, kernel)
        lost[1].kill()
        started = time.monotonic()
        with pytest.raises(TargetUnavailableError, match=r"no other one gives the same tokens: .* differ in kernel"):
            first += await tokens(rounds)
        assert time.monotonic() - started < sum(PAUSES_SECONDS) + 5
        assert first == expected[: len(first)]
        assert decode.num_refused == 0  # it is the right model, so new sessions open there
        assert len(await tokens(decode.decode(PROMPT, PARAMS, MAX_TOKENS, 0))) == len(expected)


async def test_one_identity(start: StartService, toy: tuple[Path, Path]) -> None:
    """If a gateway asks for it, new sessions open only on replicas with exactly the same identity."""
    right = start("target_service", model=toy[0], dtype="float32").address
    other_kernel = pb.ModelIdentity(kernel="other")
    async with (
        replica(toy[0], "other") as other,
        gateway_of(right, other, one_identity=True, identity=other_kernel) as decode,
    ):
        for _ in range(6):
            rounds = decode.decode(PROMPT, PARAMS, 2, 0)
            assert (await anext(rounds)).identity.kernel == "other"
            await rounds.aclose()
        assert decode.num_refused > 0


@pytest.mark.parametrize("row_exact", [True, False])
async def test_a_gateway_warns_once(toy: tuple[Path, Path], *, row_exact: bool) -> None:
    """A gateway whose target is not exact logs that once, at its start."""
    flags = {"tokenizer": toy[0], "draft": "", "port": free_port()}
    async with replica(toy[0], "other", row_exact=row_exact) as target:
        command = ["-m", "gateway", *(f"--{name}={value}" for name, value in (flags | {"target": target}).items())]
        gateway = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stderr=subprocess.PIPE)
        assert gateway.stderr
        told = b""
        try:
            while b'"serving"' not in told:
                told += await gateway.stderr.readuntil()
        finally:
            gateway.kill()
            await gateway.wait()
    lines = [json.loads(line) for line in told.splitlines() if line.startswith(b"{")]
    warnings = [line["kernel"] for line in lines if line["event"] == INEXACT]
    assert warnings == ([] if row_exact else ["other"])


class Older(pb_grpc.TargetServiceServicer):
    """A target of an older release, which does not answer `open` and does not report its identity."""

    async def GetModelInfo(self, request: Any, context: Any) -> pb.TargetServiceGetModelInfoResponse:
        """Describe the model, without its identity."""
        return pb.TargetServiceGetModelInfoResponse(model_info=pb.ModelInfo(name="old", row_exact=True))

    async def Verify(self, request_iterator: Any, context: Any) -> NoReturn:  # type: ignore[override]  # sync or async
        """Do nothing: never called."""
        raise NotImplementedError


async def test_a_target_of_an_older_release(toy: tuple[Path, Path]) -> None:
    """A gateway refuses to start with it, since every request would wait for ever."""
    server = grpc.aio.server()
    pb_grpc.add_TargetServiceServicer_to_server(Older(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(ModelError, match=r"the target \(old\) does not tell what it serves"):
        await main(GatewaySettings.model_construct(tokenizer=str(toy[0]), target=f"127.0.0.1:{port}"))
    await server.stop(None)


@pytest.fixture
def single(start: StartService, toy: tuple[Path, Path]) -> Service:
    """Return a target with one slot."""
    return start("target_service", model=toy[0], num_slots=1, slot_wait_seconds=1)


async def test_opened_comes_before_any_verify(single: Service) -> None:
    """The answer to `open` needs no `verify`; it holds the identity, what the cache had, and nothing else."""
    async with grpc.aio.insecure_channel(single.address) as channel:
        stub = pb_grpc.TargetServiceStub(channel)
        info = (await stub.GetModelInfo(pb.TargetServiceGetModelInfoRequest())).model_info
        assert len(info.identity.weights) == 64
        assert info.identity.tokenizer_fingerprint == info.tokenizer_fingerprint
        for num_cached in (0, 8):
            call: VerifyCall = stub.Verify()
            await call.write(target_open(prompt=range(300, 309)))
            described = dict(await call.initial_metadata())[OPENED]
            assert isinstance(described, bytes)
            opened = pb.Opened.FromString(described)
            assert len(opened.incarnation) == 16
            limits: Any = {"max_length": info.max_length, "max_draft_tokens": info.max_draft_tokens}
            assert opened == pb.Opened(identity=info.identity, incarnation=opened.incarnation, **limits)
            opened.num_cached = num_cached
            assert await call.read() == pb.VerifyResponse(opened=opened)
            await call.write(verify(0, 9))
            response = await call.read()
            assert isinstance(response, pb.VerifyResponse)
            assert not response.HasField("opened")
            assert len(response.token_ids) == 1
            call.cancel()


async def test_refusals_need_no_verify(single: Service) -> None:
    """A client that waits for the answer to `open` always gets the status, for a wrong grammar or a full target."""
    wrong = target_open(sampling=pb.SamplingParams(top_p=1, regex="("))
    async with grpc.aio.insecure_channel(single.address) as channel:
        stub = pb_grpc.TargetServiceStub(channel)
        for _ in range(20):
            call: VerifyCall = stub.Verify()
            await call.write(wrong)
            with pytest.raises(grpc.aio.AioRpcError, match="regex: ") as refused:
                await call.read()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        holding: VerifyCall = stub.Verify()
        await holding.write(target_open())
        await holding.read()
        assert (await outcome(stub.Verify(send([target_open()]))))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        holding.cancel()
