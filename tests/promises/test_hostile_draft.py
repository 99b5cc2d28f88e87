"""A draft can do nothing but help: whatever it says, or does not, the tokens are the target's, and soon there."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from adversary import Adversary, serve
from services import StartService, decoder

from gateway.rounds.round import Round
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

PROMPT, PARAMS, MAX_TOKENS = list(range(40, 60)), SamplingParams(temperature=1.0, seed=7), 20
DEADLINE_SECONDS = 1.0
END = 2**31 - 1
Ask = pb.DraftOpen | pb.DraftAdvance
Answer = Iterable[pb.DraftResponse | float | grpc.StatusCode | None]


def part(ask: Ask, *token_ids: int, **fields: Any) -> pb.DraftResponse:
    """Return a part of the proposal that was asked for."""
    fields = {"round": ask.round, "last": True, "proposer": pb.PROPOSER_DRAFT_MODEL} | fields
    return pb.DraftResponse(token_ids=token_ids, **fields)


def timed(**fields: int) -> Callable[[Ask], Answer]:
    """Answer with this timing."""
    return lambda ask: [part(ask, 5, timing=pb.StepTiming(**fields))]


def endless(ask: Ask, **fields: Any) -> Answer:
    """Never stop."""
    return (part(ask, 5, last=False, **fields) for _ in itertools.count())


ANSWERS: dict[str, Callable[[Ask], Answer]] = {
    "outside the vocabulary": lambda ask: [part(ask, 5, END, 6)],
    "negative": lambda ask: [part(ask, -1), part(ask, 5)],
    "more than asked": lambda ask: [part(ask, *[5] * 200)],
    "endless": endless,
    "endless, of another round": lambda ask: endless(ask, round=ask.round + 1),
    "endless, after its end": lambda ask: itertools.chain([part(ask, 5)], endless(ask)),
    "large": lambda ask: [part(ask, *[END] * 2**18)],
    "silent": lambda _: [3600.0],
    "no last part": lambda ask: [part(ask, 5, last=False), 3600.0],
    "wrong rounds": lambda ask: [part(ask, 5, round=ask.round - 1), part(ask, 5, round=END), 3600.0],
    "late": lambda ask: [part(ask, 5, last=False), 1.3, part(ask, 6)],
    "ended": lambda _: [None],
    "ended in the middle": lambda ask: [part(ask, 5, last=False), None],
    "gone": lambda _: [grpc.StatusCode.UNAVAILABLE],
    "failed": lambda _: [grpc.StatusCode.INTERNAL],
    "refused": lambda ask: [part(ask, 5), grpc.StatusCode.RESOURCE_EXHAUSTED],
    "no such proposer": lambda ask: [part(ask, 5, proposer=99)],
    "no proposer": lambda ask: [part(ask, 5, proposer=0)],
    "no sessions": timed(num_passes=1, num_rows=1, forward_us=9),
    "no rows": timed(num_passes=1, num_sessions=1, forward_us=9),
    "neither": timed(num_passes=1, forward_us=9),
    "negative time": timed(num_passes=1, num_rows=1, num_sessions=1, forward_us=-(2**63)),
    "negative counts": timed(num_passes=-1, num_rows=-1, num_sessions=-1),
    "endless time": timed(num_passes=1, num_rows=END, num_sessions=END, forward_us=2**63 - 1, queue_us=2**63 - 1),
    "several processes": lambda ask: [part(ask, 5, incarnation="a"), part(ask, 6, incarnation="b")],
}


class Hostile(Adversary):
    """Answers every question in the same way."""

    answers: Callable[[Ask], Answer]

    async def Draft(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[pb.DraftRequest], context: Any
    ) -> Any:
        """Say what the test says; a number is a pause in seconds, and None ends the stream."""
        async for request in request_iterator:
            self.num_proposals += 1
            for item in self.answers(request.open if request.HasField("open") else request.advance):
                if item is None:
                    return
                if isinstance(item, grpc.StatusCode):
                    await context.abort(item, "as the test says")
                elif isinstance(item, float):
                    await asyncio.sleep(item)
                else:
                    await context.write(item)


@dataclass
class Plain:
    """A target, and what it decodes alone."""

    address: str
    info: pb.ModelInfo
    token_ids: list[int]


@pytest_asyncio.fixture(scope="module")
async def plain(start: StartService, toy: tuple[Path, Path]) -> Plain:
    """Decode without a draft."""
    address = start("target_service", model=toy[0], dtype="float32").address
    async with decoder(address, None) as decode:
        rounds = [done async for done in decode.decode(PROMPT, PARAMS, MAX_TOKENS, 0)]
        return Plain(address, decode.target, tokens(rounds))


def tokens(rounds: list[Round]) -> list[int]:
    """Return what all rounds committed."""
    return [token_id for done in rounds for token_id in done.token_ids]


@pytest.mark.parametrize("name", ANSWERS)
async def test_hostile_draft(plain: Plain, name: str) -> None:
    """The tokens are those of plain decoding, and no more than one round of a session waits for the deadline."""
    hostile = Hostile(plain.info, 3)
    hostile.answers = ANSWERS[name]
    async with serve(hostile) as address, decoder(plain.address, address, DEADLINE_SECONDS) as decode:
        for k, num_lookup_tokens in ((4, 0), (None, None)):
            decoding = decode.decode(PROMPT, PARAMS, MAX_TOKENS, k, num_lookup_tokens=num_lookup_tokens)
            rounds = [done async for done in decoding]
            assert tokens(rounds) == plain.token_ids
            assert sum(done.time.seconds >= DEADLINE_SECONDS for done in rounds) <= 1
            assert all(done.num_drafted <= (k or 12) for done in rounds)
        assert decode._draft_client.shunned == (name.startswith("endless,") or name in {"endless", "several processes"})
    assert hostile.num_proposals


@pytest.mark.parametrize("numbers", [(-1, -1, -1), (END, 1, 1), (END, END, END)])
async def test_hostile_numbers(plain: Plain, numbers: tuple[int, int, int]) -> None:
    """Limits that cannot be true do no harm either."""
    hostile = Hostile(plain.info, 3)
    hostile.answers = lambda ask: [part(ask, 5)]
    hostile.info.max_draft_tokens, hostile.info.vocab_size, hostile.info.max_length = numbers
    async with serve(hostile) as address, decoder(plain.address, address, DEADLINE_SECONDS) as decode:
        assert tokens([done async for done in decode.decode(PROMPT, PARAMS, MAX_TOKENS, 4)]) == plain.token_ids
