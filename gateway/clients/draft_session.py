"""One session at the draft service, which may be slow, full, or gone: nothing here ever fails a request."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import perf_counter
from typing import Self

import grpc
import structlog

from gateway.clients.draft_client import DraftCall, DraftClient
from gateway.clients.proposal import Proposal
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

log = structlog.get_logger()

_PAUSE_SECONDS = 1.0  # after a stream that was refused, for instance for want of a slot


class DraftSession:
    """Asks for a proposal a round, and takes what arrives in time.

    A proposal that misses its deadline is waited for no more: until it is complete the rounds go on without draft
    tokens, and then the draft is told at once all that was committed meanwhile. A draft that comes back is given the
    whole sequence anew.
    """

    def __init__(
        self,
        client: DraftClient,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        predicted_ids: Sequence[int],
        deadline_seconds: float,
    ) -> None:
        """Prepare; the first `propose` opens the stream."""
        self._client, self._deadline_seconds = client, deadline_seconds
        # What a draft that joins in the middle of the reply has to know, and what nobody asks of it.
        self._params = replace(params, output_start=len(prompt_ids), logprobs=False, prompt_logprobs=False)
        self._predicted_ids = predicted_ids
        self._committed = list(prompt_ids)
        self._told = 0  # how many of the committed tokens the stream was told
        self._known = 0  # how many of them it was told when the draft model was last asked
        self._round = -1
        self._proposal = Proposal(self._round, complete=True)
        self._progress = asyncio.Event()
        self._call: DraftCall | None = None  # while the stream is up
        self._reader: asyncio.Task[None] | None = None
        self._not_before = 0.0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        client: DraftClient,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        predicted_ids: Sequence[int],
        deadline_seconds: float,
    ) -> AsyncIterator[Self]:
        """Hold a session for the length of the block."""
        session = cls(client, prompt_ids, params, predicted_ids, deadline_seconds)
        try:
            yield session
        finally:
            if session._reader:
                session._reader.cancel()

    @property
    def behind(self) -> int:
        """How many of the committed tokens the draft model does not know."""
        return len(self._committed) - self._known

    async def propose(self, k: int, num_lookup_tokens: int) -> Proposal:
        """Return draft tokens for the next round: a whole proposal, or what there is of it at the deadline.

        Up to k are asked of the draft model, or in their place up to `num_lookup_tokens` that are looked up; nothing if
        the draft is gone or still at an earlier round.
        """
        self._round += 1
        message = self._message(k, num_lookup_tokens)
        if not message:
            return Proposal(self._round, asked=False)
        self._proposal = proposal = Proposal(self._round, num_new=self.behind if k else 0)
        self._told = len(self._committed)
        if k:
            self._known = self._told
        if not self._call:
            self._call = self._client.draft()
            self._reader = asyncio.create_task(self._read(self._call))
        try:
            async with asyncio.timeout(self._deadline_seconds):
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the stream ended: the reader says why
                    await self._call.write(message)
                while not proposal.complete:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.info("draft is late: going on without", round=self._round, arrived=len(proposal.token_ids))
        return replace(proposal, token_ids=list(proposal.token_ids), timings=list(proposal.timings))

    def _message(self, k: int, num_lookup_tokens: int) -> pb.DraftRequest | None:
        """Return what to ask of the draft, if it is to be asked."""
        info = self._client.info
        if not info or not self._proposal.complete or perf_counter() < self._not_before:
            return None
        news = self._committed[self._told :]
        most = info.max_draft_tokens
        if info.HasField("model_info"):
            if max(news) >= info.model_info.vocab_size:  # a token of the target's padded tail
                return None
            most = min(most, info.model_info.max_length - len(self._committed))
        numbers = {"num_draft_tokens": min(k, most), "num_lookup_tokens": min(num_lookup_tokens, most)}
        if max(numbers.values()) < 1:
            return None
        if self._call:
            advance = pb.DraftAdvance(round=self._round, position=self._told, token_ids=news, **numbers)
            return pb.DraftRequest(advance=advance)
        opening = pb.DraftOpen(
            prompt_token_ids=news,
            predicted_token_ids=self._predicted_ids,
            sampling=self._params.to_pb(),
            round=self._round,
            **numbers,
        )
        return pb.DraftRequest(open=opening)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append what the target committed."""
        self._committed.extend(token_ids)

    async def _read(self, call: DraftCall) -> None:
        try:
            async for part in call:
                if part.round == self._proposal.round:
                    self._proposal.token_ids.extend(part.token_ids)
                    self._proposal.proposer = self._proposal.proposer or part.proposer
                    self._proposal.timings.append(part.timing)
                    self._proposal.complete = part.last
                    self._progress.set()
        except grpc.aio.AioRpcError as error:
            log.info("draft stream ended", reason=error.details() or error.code().name)
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                self._not_before = perf_counter() + _PAUSE_SECONDS
        finally:
            call.cancel()
            self._call = None
            self._told = self._known = 0
            self._proposal.complete = True
            self._progress.set()
