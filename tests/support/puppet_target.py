"""The named seam for targets that no engine would make: they do as the test says, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from gateway.clients.deadlines import Deadlines
from gateway.clients.target.client import TargetClient
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import OPENED, OPTIONS

VOCAB = 100
Requests = AsyncIterator[pb.VerifyRequest]
Script = Callable[["PuppetTarget", Requests, Any], Awaitable[None]]


class PuppetTarget(pb_grpc.TargetServiceServicer):
    """Introduces itself, then does what its script says with each stream."""

    def __init__(self, name: str, script: Script) -> None:
        """Be of this incarnation."""
        self.opened = pb.Opened(incarnation=name, max_length=64, max_draft_tokens=4)
        self.script = script
        self.openings: list[pb.VerifyOpen] = []
        self.found = False

    async def GetModelInfo(self, request: Any, context: Any) -> pb.TargetServiceGetModelInfoResponse:
        """Have a small vocabulary."""
        self.found = True
        info = pb.ModelInfo(vocab_size=VOCAB, max_length=64, max_draft_tokens=4, identity=self.opened.identity)
        return pb.TargetServiceGetModelInfoResponse(model_info=info)

    async def Verify(self, request_iterator: Requests, context: Any) -> None:  # type: ignore[override]  # async
        """Follow the script."""
        await context.send_initial_metadata(((OPENED, self.opened.SerializeToString()),))
        self.openings.append((await anext(request_iterator)).open)
        await self.script(self, request_iterator, context)


async def decodes(puppet: PuppetTarget, requests: Requests, context: Any, *, rounds: int = 10**6) -> None:
    """Commit, for so many rounds, the token that follows from the number of those before it."""
    await context.write(pb.VerifyResponse(opened=puppet.opened))
    for _ in range(rounds):
        if (asked := await anext(requests, None)) is None:
            return
        request = asked.verify
        answer = pb.VerifyResponse(round=request.round, position=request.position, token_ids=[request.position % VOCAB])
        await context.write(answer)


async def is_full(puppet: PuppetTarget, _requests: Requests, context: Any) -> None:
    """Have no slot, for as long as is waited, and no longer than a second."""
    opening = puppet.openings[-1]
    await asyncio.sleep(min(opening.max_wait_ms, 1000) / 1000 if opening.HasField("max_wait_ms") else 1)
    pushback = (("grpc-retry-pushback-ms", "1000"),)
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "all slots are busy", pushback)


async def is_mute(_puppet: PuppetTarget, _requests: Requests, _context: Any) -> None:
    """Say nothing."""
    await asyncio.sleep(3600)


@asynccontextmanager
async def puppets(*scripts: Script, **seconds: float) -> AsyncIterator[tuple[TargetClient, list[PuppetTarget]]]:
    """Serve a replica for each script, with a client that waits for so many seconds."""
    async with AsyncExitStack() as stack:
        targets = [PuppetTarget(f"replica {number}", script) for number, script in enumerate(scripts)]
        ports = []
        for target in targets:
            server = grpc.aio.server(options=OPTIONS)
            pb_grpc.add_TargetServiceServicer_to_server(target, server)
            ports.append(server.add_insecure_port("127.0.0.1:0"))
            await server.start()
            stack.push_async_callback(server.stop, None)
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        client = TargetClient(f"ipv4:{addresses}", deadlines=Deadlines(**seconds))
        stack.push_async_callback(client.close)
        while not all(target.found for target in targets):
            await client.model_info(10)
        yield client, targets
