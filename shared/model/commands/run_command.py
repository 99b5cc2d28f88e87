"""A service's other commands: `python -m target_service compile`, `doctor` and `kernels`."""

import sys

from shared import log
from shared.errors import ModelError
from shared.model.checkpoints.pairs import resolve_half
from shared.model.commands.compile_graphs import compile_graphs
from shared.model.commands.doctor import DoctorSettings, doctor
from shared.model.devices.cpu.exactness.kernel_trial import main as try_kernels
from shared.model.distributed.leader import follow
from shared.model.distributed.ranks import rank
from shared.model.loading.open_runner import open_runner
from shared.model.settings import EngineSettings


def run_command(settings: type[EngineSettings], half: int) -> None:
    """Run the command named by the first argument, with settings from the other arguments."""
    command = sys.argv.pop(1)
    log.configure(command, "WARNING")
    try:
        if command == "kernels":
            try_kernels()
            return
        if command == "doctor":
            sys.exit(0 if rank() else min(1, doctor(DoctorSettings.load(), half)))
        given = settings.load()
        given = given.model_copy(update={"device": "neuron", "quant": given.quant or "none"})
        if rank():
            follow(open_runner(resolve_half(given.model, half), given))
        compile_graphs(resolve_half(given.model, half), given)
    except ModelError as error:
        sys.exit(str(error))
