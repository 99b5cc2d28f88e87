"""One seed, one output: whichever proposer the draft tokens come from, and whatever was predicted."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from services import ROOT, StartService, decoder
from test_lossless import MAX_TOKENS, STOP, Case, make_cases

from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc

Predict = Callable[[list[int]], list[int]]

# Prompts that repeat themselves, so that there is something to look up.
CASES = [Case(case.prompt * 2, case.params, case.k) for case in make_cases(20, longest=45)]
PREDICTIONS: dict[str, Predict] = {
    "right": list,
    "edited": lambda reply: [*reply[:5], 7, *reply[6:12], *reply[14:]],
    "wrong": lambda reply: [token_id + 1 for token_id in reply],
    "random": lambda reply: random.Random(len(reply)).choices(range(400), k=200),
    "stops": lambda reply: [STOP] * 10 * len(reply),
    "none": lambda reply: reply[:0],
}


async def decode_all(
    decode: Decoder, k: int, num_lookup_tokens: int = 0, predicted: list[list[int]] | None = None
) -> tuple[list[list[int]], list[Round]]:
    """Return the tokens of each case, and all rounds; 8 run at once."""
    turns, rounds = asyncio.Semaphore(8), list[Round]()

    async def one(index: int, case: Case) -> list[int]:
        async with turns:
            own = [
                done
                async for done in decode.decode(
                    case.prompt,
                    case.params,
                    MAX_TOKENS,
                    k,
                    num_lookup_tokens=num_lookup_tokens,
                    predicted_ids=predicted[index] if predicted else (),
                )
            ]
        rounds.extend(own)
        return [token_id for done in own for token_id in done.token_ids]

    return await asyncio.gather(*(one(*each) for each in enumerate(CASES))), rounds


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("model", ["none", "good"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_on_equals_off(
    start: StartService, toy: tuple[Path, Path], dtype: str, model: str, prediction: str
) -> None:
    """With and without a draft model, lookups and predictions change no token; each proposer has its turn."""
    target = start("target_service", model=toy[0], dtype=dtype).address
    named = {"none": "none", "good": toy[1]}[model]
    draft = start("draft_service", model=named, dtype=dtype, memory_tokens=0).address
    async with decoder(target, draft) as decode:
        alone, _ = await decode_all(decode, 0)
        predicted = [PREDICTIONS[prediction](reply) for reply in alone]
        together, rounds = await decode_all(decode, 4, 6, predicted)
        assert together == alone
    drafted, accepted = Counter[str | None](), Counter[str | None]()
    for done in rounds:
        drafted[done.proposer] += done.num_drafted
        accepted[done.proposer] += done.num_accepted
    assert ("model" in drafted) == (model == "good" and prediction != "right")
    if prediction in {"wrong", "none"}:
        assert "lookup" in drafted
    assert ("prediction" in drafted) == (prediction != "none")
    if prediction == "right":
        assert accepted["prediction"] == drafted["prediction"]
    if prediction == "edited":
        assert 0.5 < accepted["prediction"] / drafted["prediction"] < 1


async def test_a_request_may_do_without_the_model(start: StartService, toy: tuple[Path, Path]) -> None:
    """With k = 0 a service that has a model only looks up; without lookups it only decodes. The tokens are the same."""
    target = start("target_service", model=toy[0], dtype="float32").address
    draft = start("draft_service", model=toy[1], dtype="float32", memory_tokens=0).address
    async with decoder(target, draft) as decode:
        alone, _ = await decode_all(decode, 0)
        looked_up, lookup_rounds = await decode_all(decode, 0, 6)
        drafted, model_rounds = await decode_all(decode, 4, 0)
    assert alone == looked_up == drafted
    assert {done.proposer for done in lookup_rounds} == {"lookup", None}
    assert {done.proposer for done in model_rounds} <= {"model", None}


async def test_a_prediction_is_taken_up_where_the_reply_has_got_to(start: StartService) -> None:
    """A session that is joined in the middle of its reply goes on in the middle of the prediction."""
    address = start("draft_service", model="none").address
    prompt, predicted = [7, 8, 9], list(range(100, 130))
    opening = pb.DraftOpen(
        prompt_token_ids=[*prompt, *predicted[:10]],
        sampling=pb.SamplingParams(top_p=1, output_start=len(prompt)),
        predicted_token_ids=predicted,
        num_lookup_tokens=4,
    )
    async with grpc.aio.insecure_channel(address) as channel:
        call = pb_grpc.DraftServiceStub(channel).Draft()
        await call.write(pb.DraftRequest(open=opening))
        part = await call.read()
    assert isinstance(part, pb.DraftResponse)
    assert (list(part.token_ids), part.last, part.proposer) == (predicted[10:14], True, pb.PROPOSER_PREDICTION)


async def test_an_unsure_proposal_ends_early(start: StartService, toy: tuple[Path, Path]) -> None:
    """It is the beginning of the one that a surer client gets, and no shorter than it asks for; so are later ones."""
    address = start("draft_service", model=toy[1], dtype="float32").address

    async def proposals(first: float, second: float, k: int = 8) -> list[list[int]]:
        sampling, token_ids = pb.SamplingParams(top_p=1), CASES[0].prompt
        opening = pb.DraftOpen(prompt_token_ids=token_ids, sampling=sampling, num_draft_tokens=k, min_confidence=first)
        advance = pb.DraftAdvance(
            round=1, position=len(token_ids), token_ids=[50], num_draft_tokens=8, min_confidence=second
        )
        got = list[list[int]]()
        async with grpc.aio.insecure_channel(address) as channel:
            call = pb_grpc.DraftServiceStub(channel).Draft()
            for request in (pb.DraftRequest(open=opening), pb.DraftRequest(advance=advance)):
                await call.write(request)
                got.append([])
                last = False
                while not last:
                    part = await call.read()
                    assert isinstance(part, pb.DraftResponse)
                    got[-1].extend(part.token_ids)
                    last = part.last
        return got

    whole = await proposals(0, 0)
    assert [len(token_ids) for token_ids in whole] == [8, 8]
    assert await proposals(1e-30, 1e-30) == whole
    assert await proposals(1, 1e-30) == [whole[0][:1], whole[1]]
    assert await proposals(1e-30, 1) == [whole[0], whole[1][:1]]
    assert await proposals(0, 1, k=0) == [[], whole[1][:1]]  # the draft model was first asked with the second one
    short = await proposals(0.01, 0.01)
    assert all(1 < len(some) < 8 and every[: len(some)] == some for some, every in zip(short, whole, strict=True))


def test_lookups_need_no_torch() -> None:
    """A draft service without a model runs where torch is not installed."""
    code = "import sys, draft_service.__main__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
