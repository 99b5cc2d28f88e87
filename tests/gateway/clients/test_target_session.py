"""A session that loses replicas, finds them full or silent, or is told what cannot be true."""

import asyncio
import time
from functools import partial
from typing import Any

import grpc
import pytest
from puppet_target import VOCAB, PuppetTarget, Requests, Script, decodes, is_full, is_mute, puppets

from gateway.clients.errors import TargetUnavailableError
from gateway.clients.target.client import TargetClient
from gateway.clients.target.replays import MAX_REPLAYS
from gateway.clients.target.replica_search import LINE_SECONDS
from shared.errors import InvalidFieldError, NoFreeSlotError
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

PROMPT = [5, 6, 7]


async def tokens(client: TargetClient, rounds: int = 4, draft_ids: tuple[int, ...] = ()) -> list[int]:
    """Return what a session of so many rounds commits."""
    async with client.session(PROMPT, SamplingParams(), max_tokens=40) as session:
        return [token_id for _ in range(rounds) for token_id in (await session.verify(draft_ids)).token_ids]


async def ends(
    puppet: PuppetTarget,
    requests: Requests,
    context: Any,
    *,
    rounds: int = 0,
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
    details: str = "as the test says",
) -> None:
    """Decode for so many rounds, then end the stream with this status."""
    await decodes(puppet, requests, context, rounds=rounds)
    await anext(requests, None)
    await context.abort(code, details)


def num_openings(targets: list[PuppetTarget]) -> int:
    """Return how often a session was opened."""
    return sum(len(target.openings) for target in targets)


async def test_a_replica_is_lost() -> None:
    """The session goes on at another one, with what was committed as its prompt."""
    async with puppets(*[partial(ends, rounds=2)] * 2) as (client, targets):
        assert await tokens(client) == [3, 4, 5, 6]
        prompts = sorted(list(opening.prompt_token_ids) for target in targets for opening in target.openings)
        assert prompts == [PROMPT, [*PROMPT, 3, 4]]


async def test_three_replays() -> None:
    """However far it comes each time, a session is replayed so many times and no more."""
    async with puppets(*[partial(ends, rounds=1)] * 5) as (client, targets):
        assert await tokens(client, MAX_REPLAYS + 1) == [3, 4, 5, 6]
        with pytest.raises(TargetUnavailableError, match="as the test says"):
            await tokens(client, MAX_REPLAYS + 2)
        assert num_openings(targets) == 2 * (MAX_REPLAYS + 1)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED])
async def test_two_replicas_at_most(code: grpc.StatusCode) -> None:
    """A replay that commits nothing is the last one."""
    async with puppets(*[partial(ends, code=code)] * 3) as (client, targets):
        with pytest.raises(TargetUnavailableError, match="as the test says"):
            await tokens(client)
        assert num_openings(targets) == 2


async def test_its_own_pass_failed_twice() -> None:
    """A replica that says that this very session failed is believed the second time, whatever was committed."""
    async with puppets(*[partial(ends, rounds=1, code=grpc.StatusCode.INTERNAL)] * 3) as (client, targets):
        with pytest.raises(TargetUnavailableError, match="as the test says"):
            await tokens(client)
        assert num_openings(targets) == 2


@pytest.mark.parametrize(
    "why", [{"details": "Cancelling all calls"}, {"code": grpc.StatusCode.DEADLINE_EXCEEDED}], ids=["drained", "idle"]
)
async def test_what_is_no_replay(why: dict[str, Any]) -> None:
    """Losing replicas that were told to stop, or gave up an idle session, is none: it outlives any number of them."""
    async with puppets(*[partial(ends, rounds=1, **why)] * 3) as (client, targets):
        assert await tokens(client, 12) == list(range(3, 15))
        assert num_openings(targets) == 12


@pytest.mark.parametrize("first", [is_mute, partial(decodes, rounds=0), partial(decodes, rounds=2)])
async def test_a_silent_replica(first: Script) -> None:
    """A target that is alive and does not answer counts as lost after its deadline, whatever it was asked."""

    async def falls_silent(puppet: PuppetTarget, requests: Requests, context: Any) -> None:
        await first(puppet, requests, context)
        await is_mute(puppet, requests, context)

    deadlines = {"open_seconds": 0.3, "first_token_seconds": 0.3, "round_seconds": 0.3}
    async with puppets(falls_silent, decodes, **deadlines) as (client, targets):
        started = time.monotonic()
        assert [await tokens(client) for _ in targets] == [[3, 4, 5, 6]] * 2
        assert 0.3 <= time.monotonic() - started < 3
    async with puppets(falls_silent, **deadlines) as (client, targets):
        with pytest.raises(TargetUnavailableError, match=r"did not answer in 0\.3 s"):
            await tokens(client, 2 * MAX_REPLAYS + 3)


async def test_a_target_that_does_not_read() -> None:
    """Nor does a write wait for ever: the prompt is larger than what gRPC sends ahead of a reader."""

    async def does_not_read(puppet: PuppetTarget, _requests: Requests, context: Any) -> None:
        await context.write(pb.VerifyResponse(opened=puppet.opened))
        await asyncio.sleep(3600)

    client_of = puppets(does_not_read, first_token_seconds=0.3)
    async with client_of as (client, _), client.session(PROMPT, SamplingParams(), max_tokens=4) as session:
        started = time.monotonic()
        with pytest.raises(TargetUnavailableError, match=r"did not answer in 0\.3 s"):
            await session.verify([1] * 2**20)
        assert time.monotonic() - started < 5


WRONG: dict[str, dict[str, Any]] = {
    "round": {"round": 1},
    "position": {"position": 4},
    "opened": {"opened": pb.Opened()},
    "no token": {"token_ids": []},
    "too many tokens": {"token_ids": [1, 2, 3, 4]},
    "outside the vocabulary": {"token_ids": [VOCAB]},
    "negative": {"token_ids": [-1]},
    "accepted too many": {"token_ids": [1, 2], "num_accepted": 3},
    "accepted less than none": {"num_accepted": -1},
    "accepted others": {"token_ids": [9, 2], "num_accepted": 1},
    "more than its own": {"token_ids": [1, 2, 3], "num_accepted": 1},
    "likeliest": {"logprobs": [pb.TokenLogprobs(top_token_ids=[VOCAB], top_logprobs=[-1])]},
    "of the prompt": {"prompt_logprobs": [pb.TokenLogprobs(top_token_ids=[3])]},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
async def test_answers_that_cannot_be_true(wrong: dict[str, Any]) -> None:
    """They count as a lost replica: another one goes on, and without one the error says so."""

    async def lies(puppet: PuppetTarget, requests: Requests, context: Any) -> None:
        await context.write(pb.VerifyResponse(opened=puppet.opened))
        await anext(requests)
        answer: dict[str, Any] = {"position": 3, "token_ids": [1]} | wrong
        await context.write(pb.VerifyResponse(**answer))

    async with puppets(lies, decodes) as (client, targets):
        assert [await tokens(client, 1, (1, 2)) for _ in targets] == [[3]] * 2
    async with puppets(lies) as (client, _):
        with pytest.raises(TargetUnavailableError, match="answer is wrong"):
            await tokens(client, 1, (1, 2))


async def test_a_full_replica_is_passed_over() -> None:
    """A session waits nowhere while another replica has a slot."""
    async with puppets(is_full, is_full, decodes) as (client, targets):
        for _ in range(12):
            started = time.monotonic()
            assert await tokens(client, 1) == [3]
            assert time.monotonic() - started < LINE_SECONDS
        assert all(opening.max_wait_ms == 0 for target in targets[:2] for opening in target.openings)


@pytest.mark.parametrize("number", [1, 3])
async def test_all_are_full(number: int) -> None:
    """A session waits in line once all have refused it, and as long as they let sessions wait."""
    async with puppets(*[is_full] * number) as (client, targets):
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(NoFreeSlotError, match="all slots are busy"):
                await tokens(client)
            assert 0.9 < time.monotonic() - started < 2.9
        waits = [opening.max_wait_ms for target in targets for opening in target.openings]
        assert max(waits) > 900
        assert all(0 in {opening.max_wait_ms for opening in target.openings} for target in targets)


async def test_full_lines() -> None:
    """Where all lines are full, a session is refused at once."""

    async def has_no_room(_puppet: PuppetTarget, _requests: Requests, context: Any) -> None:
        pushback = (("grpc-retry-pushback-ms", "30000"),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "64 wait", pushback)

    async with puppets(has_no_room, has_no_room) as (client, targets):
        started = time.monotonic()
        with pytest.raises(NoFreeSlotError, match="64 wait"):
            await tokens(client)
        assert time.monotonic() - started < 1
        waits = {opening.max_wait_ms for target in targets for opening in target.openings}
        assert waits == {0, LINE_SECONDS * 1000}


async def test_a_wrong_replica_is_not_waited_for() -> None:
    """A replica that may not decode is left before it has a slot, however long it would have the session wait."""
    async with puppets(decodes, is_mute) as (client, targets):
        client.replicas.reference = pb.ModelInfo(vocab_size=VOCAB, identity=pb.ModelIdentity(weights="right"))
        targets[0].opened.identity.weights = "right"
        started = time.monotonic()
        assert [await tokens(client, 1) for _ in range(8)] == [[3]] * 8
        assert time.monotonic() - started < 10
        assert targets[1].openings


async def test_a_message_too_large_is_no_full_target() -> None:
    """A RESOURCE_EXHAUSTED of gRPC's own is the request's fault, and not to be tried again."""
    async with puppets(decodes) as (client, _), client.session(PROMPT, SamplingParams(), max_tokens=4) as session:
        with pytest.raises(InvalidFieldError, match="prompt: too much for one message"):
            await session.verify([-1] * 7_000_000)
