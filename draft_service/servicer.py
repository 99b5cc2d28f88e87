"""The Draft stream."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from draft_service.proposer import Proposer
from shared.errors import OutOfOrderError
from shared.model.engine import Engine
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import errors_as_status
from shared.sampling_params import SamplingParams

DraftContext = grpc.aio.ServicerContext[pb.DraftRequest, pb.DraftResponse]
InfoContext = grpc.aio.ServicerContext[pb.DraftServiceGetModelInfoRequest, pb.DraftServiceGetModelInfoResponse]


class DraftServicer(pb_grpc.DraftServiceServicer):
    """Proposes draft tokens with the draft model."""

    def __init__(self, engine: Engine) -> None:
        """Serve the engine's model."""
        self._engine = engine

    async def GetModelInfo(
        self,
        request: pb.DraftServiceGetModelInfoRequest,
        context: InfoContext,
    ) -> pb.DraftServiceGetModelInfoResponse:
        """Describe the draft model."""
        return pb.DraftServiceGetModelInfoResponse(model_info=self._engine.info)

    async def Draft(  # type: ignore[override]  # the generated base leaves sync or async open
        self, request_iterator: AsyncIterator[pb.DraftRequest], context: DraftContext
    ) -> None:
        """Hold one session: `open`, then one `advance` after each round."""
        async with errors_as_status(context):
            first = await anext(request_iterator, None)
            if first is None:
                return
            if first.WhichOneof("message") != "open":
                raise OutOfOrderError("message: the first one of a stream is `open`")
            opening, params = first.open, SamplingParams.from_pb(first.open.sampling)
            async with (
                self._engine.session(opening.prompt_token_ids, params) as session,
                asyncio.TaskGroup() as tasks,
            ):
                proposer = Proposer(self._engine, session, opening.round, context.write)
                proposal = tasks.create_task(proposer.propose(opening.num_draft_tokens))
                async for request in request_iterator:
                    if request.WhichOneof("message") != "advance":
                        raise OutOfOrderError("message: after `open`, each one is `advance`")
                    self._engine.withdraw(session)  # what is still being made is superseded
                    await proposal
                    proposer.advance(request.advance)
                    proposal = tasks.create_task(proposer.propose(request.advance.num_draft_tokens))
