"""`compile`: compiles every graph into the cache ahead of time."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.errors import ModelError
from shared.model.checkpoints.supported import served_config
from shared.model.commands.footprint import Footprint
from shared.model.devices.static.static_runner import StaticRunner
from shared.model.distributed.leader import lead
from shared.model.loading.open_runner import open_runner
from shared.model.loading.probes import inexact_pass
from shared.model.settings import EngineSettings

MB = 10**6


def compile_graphs(folder: Path, settings: EngineSettings) -> None:
    """Compile each graph, run it once, and print how long that took. Raises ModelError."""
    runner = open_runner(folder, settings)
    if not isinstance(runner, StaticRunner):
        raise ModelError(f"device {runner.device}: it has no graphs to compile")
    config = runner.model.config
    vocab_size = config.get_text_config().vocab_size
    sizes, dtype = runner.sizes, runner.model.dtype
    table = Table(
        "graph", "slots x rows", "keys", "seconds", "results, MB", title=f"{settings.model} on {runner.device}"
    )
    for warmed in runner.warmed:
        num_slots, num_rows = warmed.shape
        results = 0 if warmed.key.kind == "prefill" else num_slots * num_rows * (vocab_size * dtype.itemsize + 4)
        kind, num_keys = warmed.key.kind, str(warmed.key.num_keys)
        table.add_row(kind, f"{num_slots} x {num_rows}", num_keys, f"{warmed.seconds:.1f}", f"{results / MB:.2f}")
    needs = Footprint.of(served_config(folder), dtype, sizes)  # the runner's has copies of heads
    console = Console()
    console.print(table)
    console.print(f"on the device: weights {needs.weights / MB:.1f} MB, keys and values {needs.cache / MB:.1f} MB")
    choice = runner.choice
    prompts = "graphs of their own" if choice.wide_prefill else "verify graphs, since their own round otherwise"
    console.print(
        f"prompts run through {prompts}: {choice.prefill_us / 1000} ms by their own, {choice.verify_us / 1000}"
    )
    console.print(f"rows of a verify: {', '.join(map(str, choice.row_counts))}; drawn in the graph: {choice.draws}")
    leading = lead(runner)
    problem = leading.inexact or inexact_pass(leading, vocab_size)[0]
    console.print(f"rows are the same bits alone and together: {problem or 'yes'}")
