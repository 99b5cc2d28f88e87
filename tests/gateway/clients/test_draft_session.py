"""The states of a session at the draft service, which here does as it is told, over a real socket."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc
import pytest

from gateway.clients.draft.client import DraftClient
from gateway.clients.draft.compiled_grammars import MOST, CompiledGrammars
from gateway.clients.draft.pace import DraftPace
from gateway.clients.draft.proposal import Proposal
from gateway.clients.draft.session import DraftSession
from gateway.clients.draft.stream import DraftState
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.sampling_params import Grammar, SamplingParams

PROMPT = [10, 11, 12]


class Puppet(pb_grpc.DraftServiceServicer):
    """The named seam: a draft service that answers when and what the test says."""

    def __init__(self) -> None:
        """Wait to be asked."""
        self.requests: asyncio.Queue[pb.DraftRequest] = asyncio.Queue()
        self._answers: asyncio.Queue[pb.DraftResponse | grpc.StatusCode] = asyncio.Queue()

        self.incarnation, self.reads = "first", True
        self.info = pb.DraftServiceGetModelInfoResponse(max_draft_tokens=4)  # no model, which fits any target

    async def GetModelInfo(self, request: Any, context: Any) -> pb.DraftServiceGetModelInfoResponse:
        """Describe itself."""
        info = pb.DraftServiceGetModelInfoResponse(incarnation=self.incarnation)
        info.MergeFrom(self.info)
        return info

    async def Draft(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[pb.DraftRequest], context: Any
    ) -> Any:
        """Give on what is asked, and what the test answers."""

        async def take() -> None:
            async for request in request_iterator if self.reads else _nothing():
                self.requests.put_nowait(request)

        taking = asyncio.create_task(take())
        try:
            while not isinstance(answer := await self._answers.get(), grpc.StatusCode):
                await context.write(answer)
            await context.abort(answer, "as the test says")
        finally:
            taking.cancel()

    def answer(self, round_: int, *token_ids: int, last: bool = True) -> None:
        """Send a part of a proposal."""
        part = pb.DraftResponse(round=round_, token_ids=token_ids, last=last, proposer=pb.PROPOSER_DRAFT_MODEL)
        part.incarnation = self.incarnation
        self._answers.put_nowait(part)

    def end(self, code: grpc.StatusCode) -> None:
        """End the stream."""
        self._answers.put_nowait(code)


async def _nothing() -> AsyncIterator[pb.DraftRequest]:
    for _ in range(0):
        yield pb.DraftRequest()


@dataclass
class Scene:
    """A session and the service that it asks."""

    session: DraftSession
    puppet: Puppet

    async def ask(
        self, k: int = 2, num_lookup_tokens: int = 0, *, patient: bool = True
    ) -> tuple["asyncio.Task[Proposal]", pb.DraftRequest]:
        """Begin a round, and return it with what the service was asked."""
        proposing = asyncio.create_task(self.session.propose(k, num_lookup_tokens, patient=patient))
        request = await asyncio.wait_for(self.puppet.requests.get(), 5)
        assert self.session.state is DraftState.ASKED
        return proposing, request

    async def until(self, state: DraftState) -> None:
        """Wait for this state."""
        async with asyncio.timeout(5):
            while self.session.state is not state:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(
    deadline_seconds: float = 5.0,
    *,
    reads: bool = True,
    remembers: bool = False,
    params: SamplingParams = SamplingParams(seed=5),  # noqa: B008 - frozen
) -> AsyncIterator[Scene]:
    """Serve the puppet, and open a session at it."""
    puppet, server = Puppet(), grpc.aio.server()
    puppet.reads, puppet.info.remembers = reads, remembers
    pb_grpc.add_DraftServiceServicer_to_server(puppet, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = DraftClient(f"127.0.0.1:{port}", pb.ModelInfo(vocab_size=100))
    watching = asyncio.create_task(client.watch())
    async with asyncio.timeout(5):
        while not client.info:
            await asyncio.sleep(0.005)
    try:
        async with DraftSession.open(client, PROMPT, params, [], deadline_seconds) as session:
            yield Scene(session, puppet)
    finally:
        watching.cancel()
        await client.close()
        await server.stop(None)


async def test_open_and_advance() -> None:
    """CLOSED, ASKED, READY, ASKED, READY: the first question tells the prompt, the next what was committed since."""
    async with scene() as at:
        assert (at.session.state, at.session.behind) == (DraftState.CLOSED, 3)
        proposing, request = await at.ask()
        assert (list(request.open.prompt_token_ids), request.open.num_draft_tokens, request.open.round) == (
            PROMPT,
            2,
            0,
        )
        at.puppet.answer(0, 20, last=False)
        at.puppet.answer(0, 21)
        proposal = await proposing
        assert (proposal.token_ids, proposal.num_new, proposal.asked) == ([20, 21], 3, True)
        assert (at.session.state, at.session.behind) == (DraftState.READY, 0)
        at.session.commit([20, 30])
        assert at.session.behind == 2
        proposing, request = await at.ask()
        advance = request.advance
        assert (list(advance.token_ids), advance.position, advance.round, advance.num_draft_tokens) == (
            [20, 30],
            3,
            1,
            2,
        )
        at.puppet.answer(0, 99)  # of the round before: not taken
        at.puppet.answer(1, 31)
        assert (await proposing).token_ids == [31]
        assert at.session.state is DraftState.READY


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_draft_that_remembers_is_told_the_rest(remembers: bool) -> None:  # noqa: FBT001 - parametrized
    """What was committed after the last proposal comes in a question for nothing; others are asked no more."""
    async with scene(remembers=remembers) as at:
        proposing, _ = await at.ask()
        at.puppet.answer(0, 20)
        await proposing
        at.session.commit([20, 30])
        at.session._close()
        if not remembers:
            await at.until(DraftState.CLOSED)
            assert at.puppet.requests.empty()
            return
        advance = (await asyncio.wait_for(at.puppet.requests.get(), 5)).advance
        assert (list(advance.token_ids), advance.position, advance.round) == ([20, 30], 3, 1)
        assert not advance.num_draft_tokens
        assert not advance.num_lookup_tokens


async def test_lookups_are_told_but_not_known() -> None:
    """What is told with a question for lookup alone is still new to the draft model."""
    async with scene() as at:
        proposing, request = await at.ask(0, 2)
        assert (request.open.num_draft_tokens, request.open.num_lookup_tokens) == (0, 2)
        at.puppet.answer(0, 20)
        assert (await proposing).num_new == 0
        at.session.commit([20])
        assert at.session.behind == 4
        proposing, request = await at.ask(2, 0)
        assert request.advance.token_ids == [20]
        at.puppet.answer(1, 21)
        assert (await proposing).num_new == 4
        assert at.session.behind == 0


async def test_late_and_back() -> None:
    """ASKED, LATE, READY: rounds ask nothing meanwhile, what came late is of no round, and all is told at once."""
    async with scene(deadline_seconds=0.2) as at:
        proposing, _ = await at.ask()
        at.puppet.answer(0, 20, last=False)
        assert (await proposing).token_ids == [20]  # what there is at the deadline
        assert at.session.state is DraftState.LATE
        for token_id in (40, 41):
            at.session.commit([token_id])
            assert not (await at.session.propose(2, 0)).asked
        at.puppet.answer(0, 21)
        await at.until(DraftState.READY)
        assert at.puppet.requests.empty()
        at.session.commit([42])
        proposing, request = await at.ask()
        assert (list(request.advance.token_ids), request.advance.position, request.advance.round) == (
            [40, 41, 42],
            3,
            3,
        )
        at.puppet.answer(3, 50)
        assert (await proposing).token_ids == [50]


async def test_a_draft_that_compiles_a_grammar_is_not_waited_for() -> None:
    """Not the first time; once it has proposed with it, it is, in this session and in others, until it is another one.

    Nor does it make deadlines longer.
    """
    grammar = Grammar("regex", "a+")
    async with scene(deadline_seconds=1.0, params=SamplingParams(seed=5, grammar=grammar)) as at:
        started = perf_counter()
        proposing, _ = await at.ask(patient=False)
        proposal = await proposing
        assert (proposal.compiles, proposal.complete, at.session.state) == (True, False, DraftState.LATE)
        assert perf_counter() - started < 0.5
        at.puppet.answer(0, 20)
        await at.until(DraftState.READY)
        client = at.session._client
        assert not any(client.pace._seconds.values())
        assert grammar in client.compiled
        at.session.commit([40])
        proposing, _ = await at.ask(patient=False)
        await asyncio.sleep(0.2)
        at.puppet.answer(1, 50)
        proposal = await proposing
        assert (proposal.compiles, proposal.token_ids) == (False, [50])
        client.meet("another")
        async with asyncio.timeout(5):
            while grammar in client.compiled:
                await asyncio.sleep(0.005)
        at.session.commit([50])
        proposing, _ = await at.ask()  # as for a k that was given
        await asyncio.sleep(0.2)
        at.puppet.answer(2, 60)
        proposal = await proposing
        assert (proposal.compiles, proposal.token_ids) == (True, [60])


def test_grammars_used_last_are_kept() -> None:
    """A bounded number of them."""
    compiled, grammars = CompiledGrammars(), [Grammar("regex", f"a{i}") for i in range(MOST + 1)]
    for grammar in grammars:
        compiled.add(grammar)
        compiled.add(grammars[0])
    assert [grammar in compiled for grammar in (grammars[0], grammars[1], grammars[2])] == [True, False, True]


@pytest.mark.parametrize("before", [DraftState.ASKED, DraftState.READY, DraftState.LATE])
async def test_a_stream_that_ends_is_replaced(before: DraftState) -> None:
    """From any state to CLOSED: the draft knows nothing any more, and the next stream begins with everything."""
    async with scene(deadline_seconds=0.2 if before is DraftState.LATE else 5) as at:
        proposing, _ = await at.ask()
        if before is DraftState.READY:
            at.puppet.answer(0, 20)
        if before is not DraftState.ASKED:
            await proposing
        assert at.session.state is before
        at.session.commit([40])
        at.puppet.end(grpc.StatusCode.UNAVAILABLE)
        await at.until(DraftState.CLOSED)
        await proposing
        assert at.session.behind == 4
        proposing, request = await at.ask()
        assert request.open.prompt_token_ids == [*PROMPT, 40]
        at.puppet.answer(1, 41)
        assert (await proposing).token_ids == [41]


async def test_a_refused_stream_is_not_opened_again_at_once() -> None:
    """After a refusal the rounds go on without the draft for a second, and then it is asked again."""
    async with scene() as at:
        proposing, _ = await at.ask()
        at.puppet.end(grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert (await proposing).token_ids == []
        assert at.session.state is DraftState.CLOSED
        assert not (await at.session.propose(2, 0)).asked
        await asyncio.sleep(1.05)
        proposing, request = await at.ask()
        assert request.open.prompt_token_ids == PROMPT
        at.puppet.answer(2, 41)
        assert (await proposing).asked


async def test_pauses_grow() -> None:
    """Streams that propose nothing follow one another ever more slowly; a proposal makes up for them."""
    async with scene() as at:
        for _ in range(2):  # the first one lost is replaced at once
            proposing, _ = await at.ask()
            at.puppet.end(grpc.StatusCode.UNAVAILABLE)
            await proposing
        stream = at.session._stream
        assert stream
        for ago, may in ((1.9, False), (2.1, True)):
            stream.ended_at = perf_counter() - ago
            assert at.session._may_ask(stream) == may
        proposing, _ = await at.ask()
        at.puppet.answer(2, 20)
        await proposing
        at.puppet.end(grpc.StatusCode.UNAVAILABLE)
        await at.until(DraftState.CLOSED)
        assert at.session._may_ask(at.session._stream or stream)


@pytest.mark.parametrize("fits", [True, False])
async def test_an_unknown_process_is_asked_what_it_serves(*, fits: bool) -> None:
    """A draft that restarted behind the gateway's back is checked anew, and left if it does not fit any more."""
    async with scene() as at:
        client, before = at.session._client, at.session._client.info
        proposing, _ = await at.ask()
        at.puppet.answer(0, 20)
        await proposing
        assert client.info is before
        at.puppet.incarnation = "second"
        at.puppet.info = pb.DraftServiceGetModelInfoResponse(
            max_draft_tokens=2, model_info=pb.ModelInfo(tokenizer_fingerprint="" if fits else "other", vocab_size=100)
        )
        at.puppet.end(grpc.StatusCode.UNAVAILABLE)
        await at.until(DraftState.CLOSED)
        proposing, _ = await at.ask()
        at.puppet.answer(1, 20)
        await proposing
        async with asyncio.timeout(5):
            while client.info is before:
                await asyncio.sleep(0.005)
        assert (client.info.max_draft_tokens if client.info else None) == (2 if fits else None)
        assert not client.shunned


async def test_a_stream_is_of_one_process() -> None:
    """A process never answers a session of its predecessor's."""
    async with scene() as at:
        proposing, _ = await at.ask()
        at.puppet.answer(0, 20, last=False)
        await asyncio.sleep(0.1)
        at.puppet.incarnation = "second"
        at.puppet.answer(0, 21)
        assert (await proposing).token_ids == [20]
        assert at.session.state is DraftState.CLOSED
        assert not (await at.session.propose(2, 0)).asked


async def test_a_draft_that_does_not_read() -> None:
    """A write that it holds up costs one deadline, and no round after it waits."""
    async with scene(deadline_seconds=0.3, reads=False) as at:
        at.session.commit([1] * 2**20)  # more than gRPC sends ahead of a reader
        started = perf_counter()
        assert (await at.session.propose(2, 0)).asked
        for _ in range(5):
            assert not (await at.session.propose(2, 0)).asked
        assert 0.3 <= perf_counter() - started < 2
        assert at.session.state is DraftState.LATE


def test_the_deadline_is_what_is_long_for_the_draft() -> None:
    """It follows what proposals for as many tokens took, late ones too, within its bounds."""
    pace = DraftPace()
    for _ in range(8):
        assert pace.deadline_seconds(4, 1, 1.0) == 1.0
        pace.add(4, 1, 0.06)
        pace.add(4, 100, 0.9)  # the draft caught up, which tells nothing of other rounds
    assert pace.deadline_seconds(4, 1, 1.0) == pytest.approx(0.24)
    assert pace.deadline_seconds(4, 100, 1.0) == pace.deadline_seconds(3, 1, 1.0) == 1.0
    assert pace.deadline_seconds(4, 1, 4.0) == pytest.approx(0.8)
    pace.add(4, 1, 2.0)
    assert pace.deadline_seconds(4, 1, 1.0) == 1.0


async def test_what_the_draft_knows_was_told_and_what_it_was_told_was_committed() -> None:
    """The invariant holds after every step of any order of questions, delays, ends and commits."""
    rng = random.Random(5)
    async with scene(deadline_seconds=0.02) as at:
        session, states = at.session, set[DraftState]()
        for round_ in range(120):
            asking = asyncio.create_task(session.propose(rng.choice([0, 2]), rng.choice([0, 2])))
            with suppress(TimeoutError):
                request = await asyncio.wait_for(at.puppet.requests.get(), 0.01)
                kind = rng.choice(["answer", "late", "end"])
                if kind == "late":
                    await asyncio.sleep(0.03)
                states.add(session.state)
                if kind == "end":
                    at.puppet.end(grpc.StatusCode.UNAVAILABLE)
                else:
                    at.puppet.answer((request.open if request.HasField("open") else request.advance).round, 20)
            await asking
            session.commit([round_] * rng.randint(1, 3))
            states.add(session.state)
            if session._stream:
                assert session._stream.known <= session._stream.told <= len(session._committed)
        assert states == set(DraftState)


async def test_a_stream_that_was_told_too_much_is_an_error() -> None:
    """The invariant is checked: a bug in it is not carried to the draft."""
    async with scene() as at:
        proposing, _ = await at.ask()
        at.puppet.answer(0, 20)
        await proposing
        assert at.session._stream
        at.session._stream.told = 4
        with pytest.raises(RuntimeError, match="was told 4 of 3 tokens"):
            await at.session._stream.ask(pb.DraftRequest(), Proposal(1), 3, 1)
