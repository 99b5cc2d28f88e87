"""`python -m target_service`: serves the target model. `compile`, `doctor` and `kernels` prepare or test a device."""

import asyncio
import sys

from prometheus_client import start_http_server

from shared import log
from shared.errors import ModelError, SettingError
from shared.message_size import max_message_bytes
from shared.model.checkpoints.pairs import TARGET
from shared.model.checkpoints.weights_hash import weights_hash
from shared.model.commands.run_command import run_command
from shared.model.distributed.leader import follow
from shared.model.distributed.ranks import rank
from shared.model.huge_pages import use_huge_pages
from shared.model.loading.load_engine import load_engine
from shared.model.loading.open_runner import open_runner
from shared.model.loading.target_folder import target_folder
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.rpc import RpcServer
from target_service.servicer import TargetServicer
from target_service.settings import TargetSettings


async def main(settings: TargetSettings) -> None:
    """Serve until told to stop."""
    folder = await asyncio.to_thread(target_folder, settings.model, settings.quant, settings.device)
    settings = settings.model_copy(update={"quant": "none"})  # the folder says it now
    engine = await load_engine(folder, settings)
    if engine.inexact and not settings.allow_inexact:
        raise ModelError(
            f"{engine.inexact}. So output could depend on speculation and on load; --allow-inexact serves it"
        )
    engine.info.identity.weights = await asyncio.to_thread(weights_hash, folder)
    await engine.measure()
    server = RpcServer(
        pb.DESCRIPTOR.services_by_name["TargetService"].full_name,
        settings.grace_seconds,
        max_message_bytes(engine.info.max_length),
        settings.network_delay_ms,
    )
    pb_grpc.add_TargetServiceServicer_to_server(TargetServicer(engine, settings), server.grpc)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.address.rpartition(":")[0], engine.meter.registry)
    await server.serve(settings.address, engine.run())


if __name__ == "__main__":
    if sys.argv[1:2] in (["compile"], ["doctor"], ["kernels"]):
        run_command(TargetSettings, TARGET)
        sys.exit()
    settings = TargetSettings.load()
    if settings.device == "cpu":
        use_huge_pages()
    log.configure("target", settings.log_level)
    try:
        if rank():
            given = settings.model_copy(update={"quant": "none"})
            follow(open_runner(target_folder(settings.model, settings.quant, settings.device), given))
        asyncio.run(main(settings))
    except ModelError as error:
        sys.exit(f"setting model: {error}")
    except SettingError as error:
        sys.exit(f"setting {error}")
