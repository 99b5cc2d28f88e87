"""The round loop: propose, verify, commit, emit."""

from collections.abc import AsyncGenerator, Callable, Sequence
from time import perf_counter

from gateway.clients.draft.client import DraftClient
from gateway.clients.draft.session import DraftSession
from gateway.clients.target.client import TargetClient
from gateway.rounds.round import FinishReason, ProposerName, Round
from gateway.rounds.round_time import RoundTime
from gateway.speculation.adaptive_k import AdaptiveK
from gateway.speculation.decision import Reason
from gateway.speculation.speculation import Speculation
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

PROPOSERS: dict[int, ProposerName] = {
    pb.PROPOSER_DRAFT_MODEL: "model",
    pb.PROPOSER_PROMPT_LOOKUP: "lookup",
    pb.PROPOSER_PREDICTION: "prediction",
    pb.PROPOSER_MEMORY: "memory",
}
FINISH_REASONS: dict[int, FinishReason] = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


class Decoder:
    """Decodes with a target service, and with a draft service while it is up."""

    def __init__(
        self,
        target_client: TargetClient,
        target: pb.ModelInfo,
        draft_client: DraftClient,
        deadline_seconds: float,
        max_k: int = 12,
    ) -> None:
        """Wait at most `deadline_seconds` for a round's draft tokens; choose k up to max_k if the request does not."""
        self.target = target
        self._target_client, self._draft_client = target_client, draft_client
        self._deadline_seconds = deadline_seconds
        max_k = min(max_k, target.max_draft_tokens)
        self._speculation = Speculation(max_k, target.num_slots, target.pass_costs)

    @property
    def num_open(self) -> int:
        """How many sequences are being decoded."""
        return self._speculation.costs.open

    @property
    def num_refused(self) -> int:
        """How many streams were given up because their replica of the target serves another model."""
        return self._target_client.replicas.num_refused

    async def reachable(self) -> bool:
        """Return whether the target can be reached."""
        return await self._target_client.reachable()

    async def decode(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        max_tokens: int,
        k: int | None,
        *,
        num_lookup_tokens: int | None = 0,
        predicted_ids: Sequence[int] = (),
        forced: bool = True,
        memory: bool = True,
        namespace: str = "",
        opened: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[Round, None]:
        """Yield the rounds of one sequence; with no draft tokens this is plain decoding.

        A round has up to `num_lookup_tokens` draft tokens found in the sequence itself, in the predicted output or in
        what was said before, or else up to k from the draft model; None means as many as pay, chosen round by round.
        Beside these, the draft model adds tokens that the grammar forces, if `forced`. What the services have of
        earlier sequences is used if these were of the same namespace, and what those said only if `memory`. `opened` is
        called as soon as the target has a slot.
        Raises InvalidFieldError, NoFreeSlotError, NoTokenError, TargetUnavailableError.
        """
        adaptive_k = AdaptiveK(
            self._speculation,
            k,
            num_lookup_tokens,
            predicted=bool(predicted_ids),
            takes_turns=self._draft_client.shares_cpu,
        )
        async with (
            self._speculation.costs.session(),
            self._target_client.session(prompt_ids, params, max_tokens, namespace) as target,
            DraftSession.open(
                self._draft_client,
                prompt_ids,
                params,
                predicted_ids,
                self._deadline_seconds,
                namespace=namespace,
                memory=memory,
            ) as draft,
        ):
            target.when_open(opened)
            left = max_tokens
            while left:
                started = perf_counter()
                decision = adaptive_k.next(left, draft.behind, draft.room)
                max_forced = (
                    min(left - 1, self.target.max_draft_tokens) - decision.k if forced and params.grammar else 0
                )
                proposal = await draft.propose(
                    decision.k,
                    decision.num_lookup_tokens,
                    min_confidence=decision.min_confidence,
                    min_lookup_acceptance=decision.min_lookup_acceptance,
                    max_forced=max_forced,
                    patient=k is not None,
                )
                proposed = perf_counter()
                verified = await target.verify(proposal.token_ids)
                verifying_seconds = perf_counter() - proposed
                draft.commit(verified.token_ids)
                adaptive_k.learn(proposal, proposed - started, verified, verifying_seconds)
                rest_seconds = perf_counter() - proposed
                yield Round(
                    token_ids=list(verified.token_ids),
                    num_drafted=proposal.num_guessed(len(proposal.token_ids)),
                    num_accepted=proposal.num_guessed(verified.num_accepted),
                    forced=[at for at in sorted(proposal.forced) if at < verified.num_accepted],
                    finish_reason=FINISH_REASONS.get(verified.finish_reason),
                    time=RoundTime.of(proposed - started, proposal.part_timings, rest_seconds, [verified.timing]),
                    logprobs=verified.logprobs,
                    prompt_logprobs=verified.prompt_logprobs,
                    proposer=PROPOSERS.get(proposal.proposer),
                    sources=[PROPOSERS[source] for source in proposal.sources],
                    reason=decision.reason if proposal.asked or not decision.speculates else Reason.NO_DRAFT,
                    num_cached=verified.num_cached,
                    identity=target.identity,
                )
                left = 0 if verified.finish_reason else left - len(verified.token_ids)
