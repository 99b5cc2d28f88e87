"""Proposes draft tokens with the draft model."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from draft_service.proposer import Ask
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

if TYPE_CHECKING:  # a draft service without a model needs no torch
    from shared.model.engine.engine import Engine
    from shared.model.engine.outcomes import Outcome
    from shared.model.engine.session import Session


class DraftModel:
    """Decodes past the committed tokens with the target's noise; what the target commits overwrites wrong guesses.

    A round that does not ask it costs it nothing: it runs that round's committed tokens when it is next asked. It
    proposes nothing where its context ends.

    When it works ahead, it continues past its proposal while the target verifies: it guesses the bonus token, which
    works well because the noise is the target's own, and then the next proposal. If the target commits exactly those
    tokens, the next proposal is ready when it is asked for; otherwise it is overwritten like any wrong guess. (The
    likeliest single outcome of SSD, arXiv 2603.03251, as in SpecEdge, arXiv 2505.17052.)

    Looked-up tokens that are not sure enough to be proposed as they are save it passes: it verifies them in its first
    one, as the target does, and goes on from where it disagrees. What it proposes is the same without them.
    """

    def __init__(
        self,
        engine: "Engine",
        slot: AsyncExitStack,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        works_ahead: bool,
        namespace: str = "",
    ) -> None:
        """Propose for this sequence; closing `slot` gives back what `open` takes."""
        self._engine, self._slot, self._params, self._works_ahead = engine, slot, params, works_ahead
        self._namespace = namespace
        self._pending = list(prompt_ids)  # committed tokens that the session may not have yet
        self._committed = 0  # how many of the session's tokens are known to be committed
        self._session: Session | None = None
        self._prefilling = False  # possibly; until it ends, nothing else may write to the session
        self._ahead: asyncio.Task[None] | None = None  # the same holds while this runs

    @property
    def has_room(self) -> bool:
        """Whether the sequence and a draft token fit the model's context, which may be shorter than the target's."""
        return self._committed + len(self._pending) < self._engine.info.max_length

    async def open(self, ask: Ask) -> "Session":
        """Take a slot and start the prefill, unless it has a slot. Raises what `Engine.session` raises."""
        if not self._session:
            # The probabilities of its tokens are told to the engine alone, which ends an unsure proposal by them.
            params = replace(self._params, logprobs=ask.min_confidence > 0)
            opening = self._engine.session(self._pending, params, namespace=self._namespace)
            self._session = await self._slot.enter_async_context(opening)
            self._slot.callback(self._cancel_ahead)
            self._committed, self._pending, self._prefilling = len(self._pending), [], True
        return self._session

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append committed tokens. Raises InvalidFieldError if this model does not know one of them."""
        self._engine.check_token_ids("token_ids", token_ids)
        self._pending.extend(token_ids)

    async def propose(
        self, ask: Ask, found: Sequence[int] = (), kind: pb.Proposer.ValueType = pb.PROPOSER_UNSPECIFIED
    ) -> AsyncGenerator[pb.DraftResponse, None]:
        """Yield the draft tokens, at once unless they are slow.

        Fewer than k where the text or the context ends, or where it is unsure. `found` were looked up, by a lookup of
        this kind.
        """
        k = ask.num_draft_tokens
        if not k or not self.has_room:
            return
        session = await self.open(ask)
        late_us = round(await self._settle(session) * 1e6)
        guessed, max_forced = self._take_over_pending(session), ask.max_forced_tokens
        if not guessed:
            guessed = session.force(max_forced)
        ready, forced = self._ready(session, guessed, k, max_forced)
        drawn, left = len(ready) - len(forced), max_forced - len(forced)
        last = drawn == k or len(ready) < len(guessed) or self._ended(session)
        if ready:
            timing, late_us = pb.StepTiming(forward_us=late_us), 0
            yield pb.DraftResponse(
                token_ids=ready, last=last, timing=timing, proposer=pb.PROPOSER_DRAFT_MODEL, forced=forced
            )
        if (num_tokens := min(k - drawn, session.room)) and not last:
            sure = ask.min_confidence
            checked = self._unchecked(found, guessed)[: num_tokens - 1]
            with self._engine.decode(session, num_tokens, checked, min_confidence=sure, max_forced=left) as outcomes:
                async for made in outcomes:
                    last, timings = made[-1].last, [one.timing for one in made]
                    token_ids, forced = _tokens(made)
                    if confirmed := made[0].verdict.num_accepted:
                        yield pb.DraftResponse(token_ids=token_ids[:confirmed], proposer=kind)
                    yield pb.DraftResponse(
                        token_ids=token_ids[confirmed:],
                        forced=[at - confirmed for at in forced],
                        last=last,
                        timing=_total(timings, late_us),
                        token_timings=timings,
                        proposer=pb.PROPOSER_DRAFT_MODEL,
                    )
                    late_us = 0
        if self._works_ahead and last and not self._ended(session):
            # The k proposed tokens, the bonus token and k more, less those already guessed.
            num_tokens = 1 + 2 * k - (len(session.token_ids) - self._committed)
            self._ahead = asyncio.create_task(self._work_ahead(session, min(num_tokens, session.room), max_forced))

    def stop(self) -> None:
        """Stop decoding after the current token."""
        if self._session and not self._prefilling:  # a prefill also serves the next proposal
            self._engine.withdraw(self._session)

    def _take_over_pending(self, session: "Session") -> list[int]:
        """Make the session begin with the committed tokens, and return what it has guessed after them."""
        guessed, num_pending = session.token_ids[self._committed :], len(self._pending)
        if guessed[:num_pending] != self._pending:
            session.rewrite(self._committed, self._pending)
            guessed = self._pending
        self._committed, self._pending = self._committed + num_pending, []
        return guessed[num_pending:]

    def _unchecked(self, found: Sequence[int], guessed: Sequence[int]) -> Sequence[int]:
        """Return the looked-up tokens that follow what it has guessed already, if it can verify and they agree."""
        agrees = self._engine.verifies and list(found[: len(guessed)]) == list(guessed)
        return found[len(guessed) :] if agrees else ()

    def _ready(
        self, session: "Session", guessed: Sequence[int], k: int, max_forced: int
    ) -> tuple[list[int], list[int]]:
        """Return the guessed tokens that a proposal has room for, and which of them, by index, are forced."""
        ready, forced = list[int](), list[int]()
        for at, token_id in enumerate(guessed):
            is_forced = self._committed + at in session.forced
            if len(forced) == max_forced if is_forced else at - len(forced) == k:
                break
            ready.append(token_id)
            forced += [at] if is_forced else []
        return ready, forced

    def _ended(self, session: "Session") -> bool:
        """Return whether a guessed token ends the sequence."""
        return len(session.token_ids) > self._committed and session.ended

    async def _settle(self, session: "Session") -> float:
        """Wait until nothing else writes to the session. Return for how many seconds a pass of work ahead went on."""
        seconds = 0.0
        if self._ahead:
            started = perf_counter()
            self.stop()
            await self._ahead
            self._ahead, seconds = None, perf_counter() - started
        elif self._prefilling and self._pending:
            await self._engine.settle(session)
        self._prefilling = False
        return seconds

    async def _work_ahead(self, session: "Session", num_tokens: int, max_forced: int) -> None:
        if num_tokens > 0:
            with self._engine.decode(session, num_tokens, ahead=True, max_forced=max_forced) as outcomes:
                async for _ in outcomes:
                    pass

    def _cancel_ahead(self) -> None:
        if self._ahead:
            self._ahead.cancel()


def _tokens(made: Sequence["Outcome"]) -> tuple[list[int], list[int]]:
    """Return the tokens of consecutive passes, and which of them, by index, are forced: those that were not drawn."""
    token_ids, forced = list[int](), list[int]()
    for outcome in made:
        drawn = outcome.verdict.num_accepted + 1
        forced += range(len(token_ids) + drawn, len(token_ids) + len(outcome.verdict.token_ids))
        token_ids += outcome.verdict.token_ids
    return token_ids, forced


def _total(timings: Sequence[pb.StepTiming], late_us: int) -> pb.StepTiming:
    """Return the time of consecutive passes and of the one before them; rows and sessions are those of the last one."""
    last = timings[-1]
    total = pb.StepTiming(forward_us=late_us, num_rows=last.num_rows, num_sessions=last.num_sessions)
    for timing in timings:
        total.queue_us += timing.queue_us
        total.forward_us += timing.forward_us
        total.sample_us += timing.sample_us
        total.num_passes += timing.num_passes
    return total
