"""What rounding the target's weights costs: next-token loss and likeliest tokens, beside those of the model itself."""

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Self

from benchmarks.machine import ROOT
from benchmarks.progress import progress
from benchmarks.section import Section
from shared.model.checkpoints.pairs import TARGET, comes_rounded


@dataclass(frozen=True)
class Predictions:
    """What `benchmarks.predictions` tells of a text: for each token but the first."""

    losses: Sequence[float]
    """In nats."""
    likeliest: Sequence[int]
    """The token that was the likeliest in its place."""

    @property
    def loss(self) -> float:
        """The mean loss."""
        return mean(self.losses)

    def more_loss(self, base: Self) -> float:
        """Return by how much the loss is above another's, in percent."""
        return 100 * (self.loss / base.loss - 1)

    def same(self, base: Self) -> float:
        """Return in how many places the likeliest token is another's, in percent."""
        return 100 * mean(ours == theirs for ours, theirs in zip(self.likeliest, base.likeliest, strict=True))


def add_flags(flags: ArgumentParser) -> None:
    """Add this mode's flags."""
    flags.add_argument("--quants", nargs="+", help="ways to round the weights: none, int8, gguf; all for it if empty")
    flags.add_argument("--texts", type=Path, default=Path(__file__).with_name("texts"), help="a folder of .txt files")
    flags.add_argument("--tokens", type=int, default=512, help="of each text, at most")


async def run(args: Namespace) -> Section:
    """Measure. Raises ValueError if the model itself does not run."""
    section = Section("Quality of rounded weights")
    quants = args.quants or (["int8", "gguf"] if comes_rounded(args.target or args.pair, TARGET) else ["int8"])
    found: dict[str, list[Predictions]] = {}
    with progress("quality", 1 + len(quants)) as advance:
        base = await _predictions(args, "none")
        advance()
        for quant in quants:
            try:
                found[quant] = await _predictions(args, quant)
            except ValueError as error:  # not every .gguf file's blocks can be served as they are
                (section.problems if args.quants else section.notes).append(str(error))
            advance()
    columns = [
        _columns(args.dtype, text, {quant: texts[place] for quant, texts in found.items()})
        for place, text in enumerate(base)
    ]
    means = {name: mean(of[name] for of in columns) for name in columns[0]}
    names = [file.stem for file in sorted(args.texts.glob("*.txt"))]
    section.table(
        "Loss, and likeliest tokens",
        [{"text": name, **of} for name, of in zip([*names, "mean"], [*columns, means], strict=True)],
    )
    section.notes.append(
        f"The mean loss of the next token, in nats, over at most {args.tokens} tokens of each text in "
        f"{args.texts.name}/, and in how many places the likeliest token is that of the weights in {args.dtype}."
    )
    return section


async def _predictions(args: Namespace, quant: str) -> list[Predictions]:
    """Return those of the target with weights rounded so, by text. Raises ValueError if it does not run."""
    flags = [
        f"--model={args.target or args.pair}",
        f"--dtype={args.dtype}",
        f"--quant={quant}",
        f"--texts={args.texts}",
    ]
    flags += [f"--max-length={args.tokens}", "--num-slots=1", "--log-level=ERROR"]
    command, pipe = [sys.executable, "-m", "benchmarks.predictions", *flags], asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
    answer, log = await process.communicate()
    if process.returncode:
        raise ValueError(f"{quant}: {(log.decode(errors='replace').strip().splitlines() or ['no reason told'])[-1]}")
    return [Predictions(**json.loads(line)) for line in answer.splitlines()]


def _columns(dtype: str, base: Predictions, rounded: Mapping[str, Predictions]) -> Mapping[str, float]:
    columns = {"tokens": len(base.losses) + 1.0, f"loss, {dtype}": base.loss}
    for quant, text in rounded.items():
        columns |= {f"loss, {quant}": text.loss, f"{quant}: more loss, %": text.more_loss(base)}
        columns |= {f"{quant}: same likeliest token, %": text.same(base)}
    return columns
