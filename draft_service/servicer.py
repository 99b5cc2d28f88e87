"""The Draft stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from secrets import token_hex
from typing import TYPE_CHECKING

import grpc

from draft_service.draft_model import DraftModel
from draft_service.lookups import Lookups
from draft_service.memory import Memory
from draft_service.prediction import Prediction
from draft_service.prompt_lookup import PromptLookup
from draft_service.proposals import MAX_LENGTH, Proposals
from draft_service.recall import Recall
from draft_service.settings import DraftSettings
from shared.errors import InvalidFieldError, OutOfOrderError
from shared.namespace import check_namespace
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import errors_as_status
from shared.sampling_params import SamplingParams
from shared.streams import Streams

if TYPE_CHECKING:  # a draft service without a model needs no torch
    from shared.model.engine.engine import Engine


DraftContext = grpc.aio.ServicerContext[pb.DraftRequest, pb.DraftResponse]
InfoContext = grpc.aio.ServicerContext[pb.DraftServiceGetModelInfoRequest, pb.DraftServiceGetModelInfoResponse]


class DraftServicer(pb_grpc.DraftServiceServicer):
    """Proposes draft tokens by lookup, and with the draft model if there is one."""

    def __init__(self, engine: "Engine | None", settings: DraftSettings) -> None:
        """Serve the engine's model, or lookups alone if there is no engine."""
        self._engine, self._settings = engine, settings
        self._memory = Memory(settings.lookup_min_match, settings.memory_tokens, settings.memory_total_tokens)
        self._incarnation = token_hex(8)
        num_slots = engine.info.num_slots if engine else settings.fixed_size[0]
        self._streams = Streams(num_slots, settings.max_waiting, settings.idle_seconds)

    async def GetModelInfo(
        self,
        request: pb.DraftServiceGetModelInfoRequest,
        context: InfoContext,
    ) -> pb.DraftServiceGetModelInfoResponse:
        """Describe the draft model."""
        return pb.DraftServiceGetModelInfoResponse(
            model_info=self._engine.info if self._engine else None,
            max_draft_tokens=self._settings.max_draft_tokens,
            incarnation=self._incarnation,
            remembers=self._settings.memory_tokens > 0,
        )

    async def Draft(  # type: ignore[override]  # the generated base leaves sync or async open
        self, request_iterator: AsyncIterator[pb.DraftRequest], context: DraftContext
    ) -> None:
        """Hold one session: `open`, then one `advance` after each round."""
        async with errors_as_status(context), AsyncExitStack() as slot:
            stream = slot.enter_context(self._streams.admitted())
            requests, send = stream.requests(request_iterator), stream.writer(context.write)

            async def write(part: pb.DraftResponse) -> None:
                part.incarnation = self._incarnation
                await send(part)

            first = await anext(requests, None)
            if first is None:
                return
            if first.WhichOneof("message") != "open":
                raise OutOfOrderError("message: the first one of a stream is `open`")
            async with asyncio.TaskGroup() as tasks:
                self._check(first.open)
                recall = None if first.open.no_memory else self._recall(first.open)
                if recall:
                    slot.push_async_callback(recall.close)  # when the model's slot is free
                model = await self._model(first.open, slot)
                lookups = await asyncio.to_thread(self._lookups, first.open, recall)  # a second for a million tokens
                most = self._settings.max_draft_tokens
                proposals = Proposals(lookups, model, first.open, most, write)
                proposal = tasks.create_task(proposals.propose(first.open))
                async for request in requests:
                    if model and not proposal.done():
                        model.stop()  # the unfinished proposal is superseded
                    await proposal  # not cancelled: after a cancelled write, gRPC sends no status
                    if request.WhichOneof("message") != "advance":
                        raise OutOfOrderError("message: after `open`, each one is `advance`")
                    proposals.advance(request.advance)
                    proposal = tasks.create_task(proposals.propose(request.advance))
                    await asyncio.sleep(0)  # let it start before listening for the next request

    def _check(self, opening: pb.DraftOpen) -> None:
        """Raise InvalidFieldError for lists that are empty, too long, or name tokens that there are not."""
        if not opening.prompt_token_ids:
            raise InvalidFieldError("prompt_token_ids", "empty")
        check_namespace(opening.namespace)
        for field in ("prompt_token_ids", "predicted_token_ids"):
            token_ids = getattr(opening, field)
            if len(token_ids) > MAX_LENGTH:
                raise InvalidFieldError(field, f"{len(token_ids)} tokens, at most {MAX_LENGTH}")
            if self._engine:
                self._engine.check_token_ids(field, token_ids)

    async def _model(self, opening: pb.DraftOpen, slot: AsyncExitStack) -> DraftModel | None:
        """Return the draft model's proposer, if there is a model; it already prefills if the first round asks it."""
        params = SamplingParams.from_pb(opening.sampling)
        if not self._engine:
            return None
        works_ahead = self._settings.works_ahead
        model = DraftModel(
            self._engine,
            slot,
            opening.prompt_token_ids,
            params,
            works_ahead=works_ahead,
            namespace=opening.namespace,
        )
        if opening.num_draft_tokens and model.has_room:
            await model.open(opening)
        return model

    def _lookups(self, opening: pb.DraftOpen, recall: Recall | None) -> Lookups:
        """Return what needs no model."""
        prompt_ids, min_match = opening.prompt_token_ids, self._settings.lookup_min_match
        prediction = Prediction(opening.predicted_token_ids, min_match)
        if said := prompt_ids[_output_start(opening) :]:  # the draft joins in the middle of the reply
            prediction.commit(said)
        return Lookups([prediction, PromptLookup(prompt_ids, min_match), *([recall] if recall else [])])

    def _recall(self, opening: pb.DraftOpen) -> Recall:
        return Recall(self._memory, opening.namespace, opening.prompt_token_ids, _output_start(opening))


def _output_start(opening: pb.DraftOpen) -> int:
    """Return where the output begins: later in the prompt than at its end only by mistake."""
    sampling, length = opening.sampling, len(opening.prompt_token_ids)
    return min(max(sampling.output_start, 0), length) if sampling.HasField("output_start") else length
