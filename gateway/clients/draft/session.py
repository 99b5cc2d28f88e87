"""One session at the draft service, which may be slow, full or gone: nothing here ever fails a request."""

from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from time import perf_counter
from typing import Self

import grpc

from gateway.clients.draft.client import DraftClient
from gateway.clients.draft.proposal import Proposal
from gateway.clients.draft.stream import DraftState, DraftStream
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

PAUSE_SECONDS = 1.0  # after a refused stream, for example when no slot was free
MAX_LENGTH = 2**31  # where no model says less
MAX_DOUBLINGS = 6  # of the pause, after streams that proposed nothing


class DraftSession:
    """Asks for one proposal a round, and takes what arrives in time.

                 open                last part
        CLOSED ────────▶ ASKED ────────────────────▶ READY
                         │   ▲        advance        │   ▲
                deadline │   └───────────────────────┘   │ last part
                         ▼                               │
                       LATE ─────────────────────────────┘

    and from any of the three to CLOSED when the stream ends.

    CLOSED: there is no stream, and the draft knows nothing. A round opens one with the whole sequence, if the service
    is up. A stream that was refused is not followed by another for a second, and one that ended without any proposal
    for twice as long each time; none follows one that the draft did not read. Only a lost replica is replaced at once,
    once.
    ASKED: the round waits for its proposal.
    READY: the proposal is complete. The next round sends the stream what was committed since the last message.
    LATE: the deadline passed. Rounds do without draft tokens, and send nothing, until the proposal is complete. For a
    draft that may have to compile the grammar it is early, unless k was given: the target goes on alone beside it.

    Always `known <= told <= len(committed)`: the stream was told the first `told` tokens, and the draft model knows
    the first `known`, which are those told when it was last asked. A round of lookups does not ask it.
    """

    def __init__(
        self,
        client: DraftClient,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        predicted_ids: Sequence[int],
        deadline_seconds: float,
        *,
        namespace: str = "",
        memory: bool = True,
    ) -> None:
        """Prepare; the first `propose` opens the stream."""
        self._client, self._deadline_seconds = client, deadline_seconds
        self._namespace, self._memory = namespace, memory
        # A draft that joins in the middle of the reply must know where it began; log-probabilities are not its task.
        self._params = replace(params, output_start=len(prompt_ids), logprobs=False, prompt_logprobs=False)
        self._predicted_ids = predicted_ids
        self._committed = array("i", prompt_ids)
        self._round = -1
        self._stream: DraftStream | None = None  # the last one
        self._num_useless = 0  # streams one after another that made no proposal

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        client: DraftClient,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        predicted_ids: Sequence[int],
        deadline_seconds: float,
        *,
        namespace: str = "",
        memory: bool = True,
    ) -> AsyncIterator[Self]:
        """Hold a session for the length of the block."""
        session = cls(client, prompt_ids, params, predicted_ids, deadline_seconds, namespace=namespace, memory=memory)
        try:
            yield session
        finally:
            session._close()

    @property
    def state(self) -> DraftState:
        """Its state in the drawing above."""
        return self._stream.state if self._stream else DraftState.CLOSED

    @property
    def behind(self) -> int:
        """How many of the committed tokens the draft model does not know."""
        return len(self._committed) - (self._stream.known if self._stream else 0)

    @property
    def room(self) -> int:
        """How many more tokens the draft model's context holds; it may be shorter than the target's."""
        info = self._client.info
        length = info.model_info.max_length if info and info.HasField("model_info") else MAX_LENGTH
        return max(0, length - len(self._committed))

    async def propose(
        self,
        k: int,
        num_lookup_tokens: int,
        *,
        min_confidence: float = 0.0,
        min_lookup_acceptance: float = 0.0,
        max_forced: int = 0,
        patient: bool = True,
    ) -> Proposal:
        """Return draft tokens for the next round: a whole proposal, or what has arrived of it by the deadline.

        Asks for up to `num_lookup_tokens` by lookup or, if it is expected that fewer than `min_lookup_acceptance` of
        these are accepted, up to k of the draft model, which stops earlier where it is less sure of them all than
        `min_confidence`, and adds up to `max_forced` where the grammar allows no other token. Who is not patient does
        not wait for a draft that compiles the grammar. Asks for nothing if the draft is gone or still at an earlier
        round.
        """
        self._round += 1
        request = self._request(k, num_lookup_tokens, max_forced)
        if not request:
            return Proposal(self._round, asked=False)
        asked = request.open if request.HasField("open") else request.advance
        asked.min_confidence, asked.min_lookup_acceptance = min_confidence, min_lookup_acceptance
        grammar = self._params.grammar
        proposal = Proposal(
            self._round,
            num_new=self.behind if asked.num_draft_tokens else 0,
            most=max(asked.num_draft_tokens + asked.max_forced_tokens, asked.num_lookup_tokens),
            num_asked=asked.num_draft_tokens,
            compiles=bool(grammar and asked.num_draft_tokens and grammar not in self._client.compiled),
            max_forced=asked.max_forced_tokens,
            vocab_size=self._client.vocab_size,
        )
        if not self._stream or self._stream.state is DraftState.CLOSED:
            if self._stream:
                self._num_useless = 0 if self._stream.has_proposed else self._num_useless + 1
            self._stream = DraftStream(self._client, grammar)
        await self._stream.ask(request, proposal, len(self._committed), self._deadline_seconds, patient=patient)
        return replace(  # what comes too late is not in it
            proposal,
            token_ids=list(proposal.token_ids),
            timings=list(proposal.timings),
            part_timings=list(proposal.part_timings),
            forced=set(proposal.forced),
            sources=list(proposal.sources),
        )

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append what the target committed."""
        self._committed.extend(token_ids)

    def _close(self) -> None:
        """End the stream; tell a draft that remembers what was said, in the background, what it was not told yet."""
        stream, info = self._stream, self._client.info
        if not stream:
            return
        rest = self._committed[stream.told :]
        remembers = info and info.remembers and self._memory
        if not (remembers and rest and stream.state is DraftState.READY):
            stream.close()
            return
        advance = pb.DraftAdvance(round=self._round + 1, position=stream.told, token_ids=rest)
        self._client.see_off(stream.finish(pb.DraftRequest(advance=advance)))

    def _may_ask(self, stream: DraftStream) -> bool:
        """Return whether the stream may be asked, or replaced if it ended."""
        if stream.state is not DraftState.CLOSED:
            return stream.state is DraftState.READY
        if not stream.is_read:
            return False
        lost = stream.code is grpc.StatusCode.UNAVAILABLE
        if lost and (stream.has_proposed or not self._num_useless):
            return True
        pause_seconds = PAUSE_SECONDS * 2.0 ** min(self._num_useless, MAX_DOUBLINGS)
        return perf_counter() > stream.ended_at + pause_seconds

    def _request(self, k: int, num_lookup_tokens: int, max_forced: int) -> pb.DraftRequest | None:
        """Return the request to the draft, or None if this round does not ask it."""
        info, stream = self._client.info, self._stream
        if not info or self._client.shunned or (stream and not self._may_ask(stream)):
            return None
        told = stream.told if stream else 0
        new_ids = self._committed[told:]
        limit = info.max_draft_tokens
        if info.HasField("model_info") and max(new_ids) >= info.model_info.vocab_size:
            return None  # a token of the target's padded tail
        numbers = {"num_draft_tokens": min(k, limit, self.room), "num_lookup_tokens": min(num_lookup_tokens, limit)}
        if max(numbers.values()) < 1:
            return None
        if numbers["num_draft_tokens"] > 0:
            rest = min(limit, self.room) - numbers["num_draft_tokens"]
            numbers["max_forced_tokens"] = max(0, min(max_forced, rest))
        if self.state is DraftState.READY:
            advance = pb.DraftAdvance(round=self._round, position=told, token_ids=new_ids, **numbers)
            return pb.DraftRequest(advance=advance)
        opening = pb.DraftOpen(
            prompt_token_ids=new_ids,
            predicted_token_ids=self._predicted_ids,
            sampling=self._params.to_pb(),
            round=self._round,
            namespace=self._namespace,
            no_memory=not self._memory,
            **numbers,
        )
        return pb.DraftRequest(open=opening)
