"""Plots what the sweep measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure  # not pyplot, which would look for a screen

Series = Mapping[str, Sequence[float | None]]


def plot_speeds(path: Path, measured: Series, predicted: Series) -> None:
    """Write a PNG of tokens a second by k, from 0: solid lines for measured speeds, dashed for predicted ones."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, speeds) in enumerate(measured.items()):
        color = f"C{number}"
        axes.plot(
            range(len(speeds)), [_number(speed) for speed in speeds], "o-", color=color, label=f"{name}, measured"
        )
        if name in predicted:
            axes.plot([_number(speed) for speed in predicted[name]], "--", color=color, label=f"{name}, predicted")
    axes.set_xlabel("k, draft tokens of a round")
    axes.set_ylabel("tokens/s after the first")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
