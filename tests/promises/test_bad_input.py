"""Bad input over gRPC: one status that names the field, and no slot held."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from services import ROOT, StartService

from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc

GREEDY = pb.SamplingParams(top_p=1)
FORBIDDEN = pb.SamplingParams(top_p=1, min_tokens=1, stop_token_ids=range(1000))
BIASES = [pb.SamplingParams(top_p=1, logit_bias=dict.fromkeys(range(number), 1)) for number in (4097, 10**6)]
TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED  # gRPC's own words follow, before the message is parsed
INVALID, ORDER = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


def target_open(
    prompt: Sequence[int] = (5, 6), max_tokens: int = 4, sampling: pb.SamplingParams = GREEDY, **fields: Any
) -> pb.VerifyRequest:
    """Open a target session."""
    opening = pb.VerifyOpen(prompt_token_ids=prompt, sampling=sampling, max_tokens=max_tokens, **fields)
    return pb.VerifyRequest(open=opening)


def verify(round_number: int, position: int, draft: Sequence[int] = ()) -> pb.VerifyRequest:
    """Ask for a round."""
    return pb.VerifyRequest(verify=pb.VerifyDraft(round=round_number, position=position, draft_token_ids=draft))


def draft_open(prompt: Sequence[int] = (5, 6), k: int = 2, sampling: pb.SamplingParams = GREEDY) -> pb.DraftRequest:
    """Open a draft session."""
    return pb.DraftRequest(open=pb.DraftOpen(prompt_token_ids=prompt, sampling=sampling, num_draft_tokens=k))


def draft_asking(**fields: Any) -> pb.DraftRequest:
    """Open a draft session with these fields."""
    return pb.DraftRequest(open=pb.DraftOpen(prompt_token_ids=(5, 6), sampling=GREEDY, **fields))


def advance(round_number: int, position: int, token_ids: Sequence[int], k: int = 2) -> pb.DraftRequest:
    """Ask for the next proposal."""
    message = pb.DraftAdvance(round=round_number, position=position, token_ids=token_ids, num_draft_tokens=k)
    return pb.DraftRequest(advance=message)


TARGET_CASES = [
    ([target_open(prompt=())], INVALID, "prompt_token_ids: empty"),
    ([target_open(prompt=(5, 100_000))], INVALID, "prompt_token_ids[1]: 100000 is outside the vocabulary"),
    ([target_open(prompt=(-1,))], INVALID, "prompt_token_ids[0]: -1 is outside"),
    ([target_open(prompt=[5] * 5000)], INVALID, "prompt_token_ids: 5000 tokens"),
    ([target_open(max_tokens=0)], INVALID, "max_tokens: 0"),
    ([target_open(max_tokens=10**9)], INVALID, "max_tokens: with the prompt"),
    ([target_open(max_wait_ms=-1)], INVALID, "max_wait_ms: -1"),
    ([target_open(progress_ms=-1)], INVALID, "progress_ms: -1"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, temperature=-1))], INVALID, "temperature: -1"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, temperature=float("nan")))], INVALID, "temperature: nan"),
    ([target_open(sampling=pb.SamplingParams(top_p=0))], INVALID, "top_p: 0"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, top_k=-3))], INVALID, "top_k: -3"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, min_p=2))], INVALID, "min_p: 2"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, frequency_penalty=3))], INVALID, "frequency_penalty: 3"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, presence_penalty=-3))], INVALID, "presence_penalty: -3"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, repetition_penalty=0))], INVALID, "repetition_penalty: 0"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, logit_bias={9999: 1}))], INVALID, "logit_bias.9999: no token"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, logit_bias={9: float("inf")}))], INVALID, "logit_bias.9: inf"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, min_tokens=-1))], INVALID, "min_tokens: -1"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, top_logprobs=21))], INVALID, "top_logprobs: 21"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, output_start=3))], INVALID, "output_start: 3"),
    ([target_open(sampling=FORBIDDEN)], INVALID, "stop_token_ids: with min_tokens, they forbid each token"),
    ([target_open(sampling=pb.SamplingParams(top_p=1, stop_token_ids=[5] * 2**19))], INVALID, "stop_token_ids: 524288"),
    ([target_open(prompt=[5] * 2_000_000)], INVALID, "prompt_token_ids: 2000000 tokens"),
    ([target_open(), verify(0, 2, [5] * 2_000_000)], INVALID, "draft_token_ids: 2000000 of them, at most 16"),
    ([target_open(sampling=BIASES[0])], INVALID, "logit_bias: 4097 of them"),
    ([target_open(sampling=BIASES[1])], TOO_MUCH, "SERVER: Received message larger than max"),
    ([verify(0, 2)], ORDER, "message: the first one"),
    ([pb.VerifyRequest()], ORDER, "message: the first one"),
    ([target_open(), target_open()], ORDER, "message: after `open`"),
    ([target_open(), verify(1, 2)], ORDER, "round: 1 where 0 is next"),
    ([target_open(), verify(0, 2), verify(0, 3)], ORDER, "round: 0 where 1 is next"),
    ([target_open(), verify(0, 3)], ORDER, "position: 3 where 2"),
    ([target_open(), verify(0, 2, [5, 100_000])], INVALID, "draft_token_ids[1]: 100000"),
    ([target_open(), verify(0, 2, [5] * 17)], INVALID, "draft_token_ids: 17 of them, at most 16"),
    # a long message is cut: gRPC would end the stream with RESOURCE_EXHAUSTED
    ([target_open(sampling=pb.SamplingParams(top_p=1, regex="(é" * 20_000))], INVALID, "regex: at 1(8): invalid regex"),
]
DRAFT_CASES = [
    ([draft_open(prompt=())], INVALID, "prompt_token_ids: empty"),
    ([draft_open(prompt=(100_000,))], INVALID, "prompt_token_ids[0]: 100000"),
    ([draft_open(k=10**9)], INVALID, "num_draft_tokens: 1000000000"),
    ([draft_open(k=-1)], INVALID, "num_draft_tokens: -1"),
    ([draft_open(sampling=pb.SamplingParams(top_p=1.5))], INVALID, "top_p: 1.5"),
    ([draft_asking(num_lookup_tokens=10**9)], INVALID, "num_lookup_tokens: 1000000000"),
    ([draft_asking(num_lookup_tokens=-1)], INVALID, "num_lookup_tokens: -1"),
    ([draft_asking(min_confidence=1.5)], INVALID, "min_confidence: 1.5"),
    ([draft_asking(min_confidence=float("nan"))], INVALID, "min_confidence: nan"),
    ([draft_asking(predicted_token_ids=[5, 100_000])], INVALID, "predicted_token_ids[1]: 100000"),
    ([draft_asking(predicted_token_ids=[5] * 2_000_000)], INVALID, "predicted_token_ids: 2000000 tokens, at most 1048"),
    ([draft_open(prompt=[5] * (2**20 + 1), k=0)], INVALID, "prompt_token_ids: 1048577 tokens, at most"),
    ([draft_open(sampling=FORBIDDEN)], INVALID, "stop_token_ids: with min_tokens, they forbid each token"),
    ([draft_open(sampling=BIASES[1])], TOO_MUCH, "SERVER: Received message larger than max"),
    ([advance(1, 2, [5])], ORDER, "message: the first one"),
    ([draft_open(), draft_open()], ORDER, "message: after `open`"),
    ([draft_open(), advance(0, 2, [5])], ORDER, "round: 0 does not follow 0"),
    ([draft_open(), advance(1, 3, [5])], ORDER, "position: 3 where 2"),
    ([draft_open(), advance(1, 2, [])], INVALID, "token_ids: empty"),
    ([draft_open(), advance(1, 2, [-5])], INVALID, "token_ids[0]: -5"),
    ([draft_open(), advance(1, 2, [5] * 2**20)], INVALID, "token_ids: they end at 1048578"),
]


async def outcome(call: "grpc.aio.StreamStreamCall[Any, Any]") -> tuple[grpc.StatusCode, str]:
    """Read the stream to its end and return how it ended."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


async def send(messages: Sequence[Any]) -> AsyncIterator[Any]:
    """Send the messages and end."""
    for message in messages:
        yield message


@pytest.mark.parametrize(("messages", "code", "details"), TARGET_CASES, ids=[case[2] for case in TARGET_CASES])
async def test_target_refuses(
    start: StartService,
    toy: tuple[Path, Path],
    messages: Sequence[pb.VerifyRequest],
    code: grpc.StatusCode,
    details: str,
) -> None:
    """The stream ends with this status and message, and the service's only slot is free at once."""
    address = start("target_service", model=toy[0], num_slots=1, slot_wait_seconds=1, dtype="bfloat16").address
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.TargetServiceStub(channel)
        got, text = await outcome(stub.Verify(send(messages)))
        assert (got, text[: len(details)]) == (code, details)
        assert await outcome(stub.Verify(send([target_open(), verify(0, 2)]), timeout=10)) == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize(("messages", "code", "details"), DRAFT_CASES, ids=[case[2] for case in DRAFT_CASES])
async def test_draft_refuses(
    start: StartService,
    toy: tuple[Path, Path],
    messages: Sequence[pb.DraftRequest],
    code: grpc.StatusCode,
    details: str,
) -> None:
    """The stream ends with this status and message, and the service's only slot is free at once."""
    address = start("draft_service", model=toy[1], num_slots=1, slot_wait_seconds=1, dtype="bfloat16").address
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.DraftServiceStub(channel)
        got, text = await outcome(stub.Draft(send(messages)))
        assert (got, text[: len(details)]) == (code, details)
        assert await outcome(stub.Draft(send([draft_open()]), timeout=10)) == (grpc.StatusCode.OK, "")


async def test_a_compressed_message(start: StartService) -> None:
    """It is not unpacked: what it holds could be a thousand times as large."""
    address = start("draft_service", model="none").address
    async with grpc.aio.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        call = pb_grpc.DraftServiceStub(channel).Draft(send([draft_open([5] * 1000)]))
        code, details = await outcome(call)
        # Seldom the client sees gRPC's reset of the stream before the status that it was reset for.
        assert code is grpc.StatusCode.UNIMPLEMENTED or (code, details) == (grpc.StatusCode.INTERNAL, "internal")


async def test_no_free_slot(start: StartService, toy: tuple[Path, Path]) -> None:
    """A session that waits too long for a slot gets RESOURCE_EXHAUSTED, and how long to wait before another try."""
    address = start("target_service", model=toy[0], num_slots=1, slot_wait_seconds=1, dtype="bfloat16").address
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.TargetServiceStub(channel)
        holding = stub.Verify()
        await holding.write(target_open())
        await holding.write(verify(0, 2))
        await holding.read()
        for opening, seconds in (
            (target_open(max_wait_ms=0), 0),
            (target_open(max_wait_ms=5000), 1),
            (target_open(), 1),
        ):
            started = time.monotonic()
            refused = stub.Verify(send([opening, verify(0, 2)]))
            assert (await outcome(refused))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert seconds <= time.monotonic() - started < (4 if seconds else 0.9)
        assert dict(await refused.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        holding.cancel()
        assert await outcome(stub.Verify(send([target_open(), verify(0, 2)]), timeout=10)) == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize("address", ["", "nowhere.invalid:1"])
async def test_an_address_that_cannot_be_bound(start: StartService, address: str) -> None:
    """It ends the start, above all if another service has it: gRPC itself would let the two share it."""
    taken = start("draft_service", model="none").address
    command = [sys.executable, "-m", "draft_service", "--model=none", f"--address={address or taken}"]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"setting address: {address or taken} cannot be bound"
