"""A malicious draft service: the named seam for drafts that no model would make."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc


class Adversary(pb_grpc.DraftServiceServicer):
    """Proposes repeats, stop tokens, nothing at all, and tokens that nobody asked for."""

    def __init__(self, target: pb.ModelInfo, stop_token_id: int, *timings: pb.StepTiming) -> None:
        """Claim to fit this target, and to have taken these times, in turn."""
        self._timings = itertools.cycle(timings or [pb.StepTiming()])
        self.info = pb.ModelInfo()
        self.info.CopyFrom(target)
        self._stop = stop_token_id
        self.num_proposals = 0

    async def GetModelInfo(self, request: Any, context: Any) -> pb.DraftServiceGetModelInfoResponse:
        """Claim to fit."""
        return pb.DraftServiceGetModelInfoResponse(model_info=self.info, max_draft_tokens=self.info.max_draft_tokens)

    async def Draft(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[pb.DraftRequest], context: Any
    ) -> Any:
        """Rotate through the kinds of harm."""
        for turn in itertools.count():
            request = await anext(request_iterator, None)
            if request is None:
                return
            message = request.open if request.HasField("open") else request.advance
            last = (request.open.prompt_token_ids or request.advance.token_ids)[-1]
            k, self.num_proposals = message.num_draft_tokens, self.num_proposals + 1
            ids = [[last] * k, [self._stop] * k, [], list(range(k)), [self.info.tokenizer_size - 1] * k][turn % 5]
            await context.write(pb.DraftResponse(round=message.round - 1, token_ids=[1, 2, 3]))
            for token_id in ids:
                await context.write(
                    pb.DraftResponse(round=message.round, token_ids=[token_id], timing=next(self._timings))
                )
            await context.write(pb.DraftResponse(round=message.round, last=True))


@asynccontextmanager
async def serve(servicer: Adversary) -> AsyncIterator[str]:
    """Serve on a socket; yields the address."""
    server = grpc.aio.server()
    pb_grpc.add_DraftServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
