"""What a service can do besides serving: `python -m target_service compile`, and `doctor`."""

import sys

from shared import log
from shared.errors import ModelError
from shared.model.compile_graphs import compile_graphs
from shared.model.doctor import DoctorSettings, doctor
from shared.model.engine_settings import EngineSettings
from shared.model.pairs import resolve_half
from shared.model.parallel import follow
from shared.model.ranks import rank


def run_command(settings: type[EngineSettings], half: int) -> None:
    """Run the command that the first argument names, with the settings of the others, and end the process."""
    command = sys.argv.pop(1)
    log.configure(command, "WARNING")
    try:
        if command == "doctor":
            sys.exit(0 if rank() else min(1, doctor(DoctorSettings.load(), half)))
        given = settings.load().model_copy(update={"device": "neuron"})
        if rank():
            follow(resolve_half(given.model, half), given)
        compile_graphs(resolve_half(given.model, half), given)
    except ModelError as error:
        sys.exit(str(error))
