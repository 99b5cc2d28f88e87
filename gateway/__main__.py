"""`python -m gateway`: the OpenAI API in front of a draft service and a target service."""

import asyncio
import gc
import signal
import sys

import structlog

from gateway.app import create_app
from gateway.clients.deadlines import Deadlines
from gateway.clients.draft.client import DraftClient
from gateway.clients.errors import TargetUnavailableError
from gateway.clients.pairing import mismatches
from gateway.clients.target.client import TargetClient
from gateway.rounds.decoder import Decoder
from gateway.settings import GatewaySettings
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.model_routes import INEXACT
from gateway.web.server import http_server
from shared import log as logging
from shared.errors import ModelError

log = structlog.get_logger()


async def main(settings: GatewaySettings) -> None:
    """Check that the models fit, then serve until told to stop."""
    tokenizer = await asyncio.to_thread(ChatTokenizer.load, settings.tokenizer, settings.chat_template)
    deadlines = Deadlines(
        settings.open_timeout_seconds, settings.first_token_timeout_seconds, settings.round_timeout_seconds
    )
    target_client = TargetClient(settings.target, one_identity=settings.one_identity, deadlines=deadlines)
    target = await target_client.model_info(settings.start_timeout_seconds)
    if not target.identity.weights:
        raise ModelError(f"the target ({target.name}) does not tell what it serves: it is of an older release")
    if tokenizer.fingerprint != target.tokenizer_fingerprint:
        raise ModelError(f"the gateway's tokenizer ({settings.tokenizer}) is not the one of the target ({target.name})")
    if not target.row_exact:
        log.warning(INEXACT, target=target.name, kernel=target.identity.kernel)
    draft_client = DraftClient(settings.draft, target)
    draft = await draft_client.model_info(timeout_seconds=2) if settings.draft else None
    if draft and (problems := mismatches(target, draft)):
        raise ModelError("; ".join(problems))
    decoder = Decoder(target_client, target, draft_client, settings.draft_deadline_seconds, settings.max_k)
    server = http_server(create_app(decoder, tokenizer, settings), settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped; that must not end the process before it has cleaned up.
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    # Streams wait for the pool's threads to let go of the interpreter, and for the garbage collector. It need not look
    # at what lives as long as the process.
    sys.setswitchinterval(0.001)
    gc.collect()
    gc.freeze()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(draft_client.watch()) if settings.draft else None
        log.info("serving", host=settings.host, port=settings.port)
        await server.serve()
        if watching:
            watching.cancel()
    await draft_client.close()
    await target_client.close()


if __name__ == "__main__":
    settings = GatewaySettings.load()
    logging.configure("gateway", settings.log_level)
    try:
        asyncio.run(main(settings))
    except (ModelError, TargetUnavailableError) as error:
        sys.exit(f"gateway: {error}")
