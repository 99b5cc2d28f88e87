"""One sequence being decoded by the target service, at whichever replica takes it."""

import asyncio
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from gateway.clients.errors import NotReachedError, OtherReplicaError, TargetUnavailableError
from gateway.clients.target.identity import WHOLE, differing
from gateway.clients.target.replays import Replays
from gateway.clients.target.replica_search import ReplicaSearch
from gateway.clients.target.replicas import Replicas
from gateway.clients.target.stream import TargetStream
from shared.errors import InvalidFieldError, NoFreeSlotError
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

log = structlog.get_logger()

PATIENCE = 3  # times the usual wait for a slot that a session stands which has something to lose
TURN_SECONDS = 30.0  # a suspect that waited so long for its turn does without


class TargetSession:
    """A sequence.

    When its replica is lost, it continues on another one, which gets everything committed so far as its prompt. A token
    depends on seed and position, so what was committed stays true, and the client sees only a pause. The other replica
    must have the same identity; otherwise the tokens to come would depend on whether a replica was lost. `Replays` says
    how often.
    """

    def __init__(
        self,
        start: Callable[[], TargetStream],
        replicas: Replicas,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        max_tokens: int,
        *,
        namespace: str = "",
    ) -> None:
        """Prepare; `open` starts the stream. A prefix that the target has is found in the same namespace alone."""
        self._start, self._replicas, self._namespace = start, replicas, namespace
        self._token_ids = array("i", prompt_ids)  # a list takes nine times as much while it waits for a slot
        self._end = len(prompt_ids) + max_tokens
        output_start = len(prompt_ids) if params.output_start is None else params.output_start
        self._params = replace(params, output_start=output_start)
        self._begun = False
        self._replays = Replays()
        self._has_turn = False
        self._stream: TargetStream | None = None  # the last one
        self.identity = pb.ModelIdentity()
        """Who decodes; known once a round is done, and the same for all of them."""

    def open(self) -> None:
        """Begin to look for a replica that takes what is committed so far."""
        self._opening = asyncio.create_task(self._open())

    def when_open(self, call: Callable[[], object]) -> None:
        """Call this as soon as a replica has taken it, unless the first that might is lost."""

        def done(opening: asyncio.Task[TargetStream]) -> None:
            if not opening.cancelled() and not opening.exception():
                call()

        self._opening.add_done_callback(done)

    async def verify(self, draft_ids: Sequence[int]) -> pb.VerifyResponse:
        """Run one round. Raises what `TargetClient.session` raises."""
        while True:
            stream = await self._opening
            try:
                position = len(self._token_ids)
                response = await stream.verify(position, draft_ids, self._end - position, self._replicas.vocab_size)
            except TargetUnavailableError as error:
                stream.close()
                self._lose(error)
                self.open()
            else:
                self._commit(response)
                return response

    def close(self) -> None:
        """End the stream."""
        if self._opening.done() and not self._opening.cancelled():
            self._opening.exception()  # nobody asks any more
        self._opening.cancel()
        if self._stream:
            self._stream.close()
        self._give_turn()

    def _commit(self, response: pb.VerifyResponse) -> None:
        self._token_ids.extend(response.token_ids)
        self._replays.commit()
        self._give_turn()
        if not self._begun:  # the first round reports the prompt's log-probabilities, once
            self._params, self._begun = replace(self._params, prompt_logprobs=False), True

    def _lose(self, error: TargetUnavailableError) -> None:
        """Take note that the replica was lost. Raises the error if the session may not go on."""
        self._replays.count(error)
        log.warning("target lost: the session goes on at another replica", reason=str(error))

    async def _open(self) -> TargetStream:
        """Return a stream at a replica that has a slot for the session."""
        search = ReplicaSearch(self._replicas, PATIENCE if self._begun else 1)
        while True:
            if self._replays.suspect:
                await self._take_turn()
            self._stream = stream = self._start()
            try:
                await self._open_at(stream, search)
            except (NoFreeSlotError, NotReachedError, OtherReplicaError) as error:
                stream.close()
                await asyncio.sleep(search.pause(error, stream.incarnation))
            except TargetUnavailableError as error:
                stream.close()
                self._lose(error)
            else:
                return stream

    async def _open_at(self, stream: TargetStream, search: ReplicaSearch) -> None:
        opening = pb.VerifyOpen(
            prompt_token_ids=self._token_ids,
            sampling=self._params.to_pb(),
            max_tokens=self._end - len(self._token_ids),
            max_wait_ms=round(search.wait_seconds * 1000),
            namespace=self._namespace,
        )
        search.ask()
        try:
            opened = await stream.open(opening, self._check, introduces=bool(self._replicas.known))
        except InvalidFieldError as error:
            self._replicas.check_refusal(self._end, error)
            raise
        self.identity = opened.identity

    def _check(self, opened: pb.Opened) -> None:
        """Raise OtherReplicaError unless the replica that describes itself so may go on with this sequence."""
        self._replicas.check(opened)
        if self._begun and (differ := differing(self.identity, opened.identity, WHOLE)):
            problem = f"those that are there differ in {', '.join(differ)}"
            raise OtherReplicaError(f"the target's replica was lost, and no other one gives the same tokens: {problem}")

    async def _take_turn(self) -> None:
        if not self._has_turn:
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN_SECONDS):
                    self._has_turn = await self._replicas.turn.acquire()

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._replicas.turn.release()
