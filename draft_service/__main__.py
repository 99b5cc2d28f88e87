"""`python -m draft_service`: serves the draft model, or lookups alone."""

import asyncio
import sys

from prometheus_client import start_http_server

from draft_service.proposals import MAX_LENGTH
from draft_service.servicer import DraftServicer
from draft_service.settings import NO_MODEL, DraftSettings
from shared import log
from shared.errors import ModelError, SettingError
from shared.message_size import max_message_bytes
from shared.model.huge_pages import use_huge_pages
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import RpcServer


async def main(settings: DraftSettings) -> None:
    """Serve until told to stop."""
    if settings.model == NO_MODEL:
        server = _server(settings, MAX_LENGTH)
        pb_grpc.add_DraftServiceServicer_to_server(DraftServicer(None, settings), server.grpc)
        await server.serve(settings.address)
        return
    from shared.model.checkpoints.pairs import DRAFT, resolve_half  # noqa: PLC0415
    from shared.model.loading.load_engine import load_engine  # noqa: PLC0415

    engine = await load_engine(resolve_half(settings.model, DRAFT), settings)
    server = _server(settings, engine.info.max_length)
    pb_grpc.add_DraftServiceServicer_to_server(DraftServicer(engine, settings), server.grpc)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.address.rpartition(":")[0], engine.meter.registry)
    await server.serve(settings.address, engine.run())


def _server(settings: DraftSettings, max_length: int) -> RpcServer:
    """Return a server for prompts of at most so many tokens, and a prediction beside each."""
    return RpcServer(
        pb.DESCRIPTOR.services_by_name["DraftService"].full_name,
        settings.grace_seconds,
        max_message_bytes(max_length + MAX_LENGTH),
        settings.network_delay_ms,
    )


if __name__ == "__main__":
    if sys.argv[1:2] in (["compile"], ["doctor"], ["kernels"]):
        from shared.model.checkpoints.pairs import DRAFT
        from shared.model.commands.run_command import run_command

        run_command(DraftSettings, DRAFT)
        sys.exit()
    settings = DraftSettings.load()
    if settings.device == "cpu" and settings.model != NO_MODEL:
        use_huge_pages()
    log.configure("draft", settings.log_level)
    try:
        asyncio.run(main(settings))
    except ModelError as error:
        sys.exit(f"setting model: {error}")
    except SettingError as error:
        sys.exit(f"setting {error}")
