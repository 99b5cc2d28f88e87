"""What a model predicts of some texts: `python -m benchmarks.predictions --model FOLDER --quant int8 --texts FOLDER`.

Prints a JSON line for each .txt file, by name: `{"losses", "likeliest"}`, for each token but the first its loss, and
which token was the likeliest in its place. A process of its own, whose end frees the model's memory.
"""

import json
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from shared import log
from shared.model.checkpoints.pairs import TARGET, resolve_half
from shared.model.loading.open_runner import open_runner
from shared.model.runner import Runner, Segment
from shared.model.settings import EngineSettings, Quant


class PredictionSettings(EngineSettings):
    """How the model runs, and on what."""

    texts: Path
    """The folder of the texts; of each, the first max_length tokens are read."""


def predict(runner: Runner, ids: list[int], chunk: int) -> tuple[list[float], list[int]]:
    """Return the losses of all tokens but the first, in nats, and the likeliest tokens in their places."""
    losses, likeliest = list[float](), list[int]()
    for start in range(0, len(ids) - 1, chunk):
        now, following = ids[start : start + chunk], ids[start + 1 : start + chunk + 1]
        (rows,) = runner.extend([Segment(0, start, now, len(now))])
        logits = rows.logits[: len(following)].float()
        losses += cross_entropy(logits, torch.tensor(following), reduction="none").tolist()
        likeliest += logits.argmax(-1).tolist()
    return losses, likeliest


def main() -> None:
    """Print the predictions."""
    settings = PredictionSettings.load()
    log.configure("quality", settings.log_level)
    stored: Quant = settings.quant if settings.quant in {"int8", "gguf"} else "none"
    folder = resolve_half(settings.model, TARGET, quant=stored)
    runner, tokenizer = open_runner(folder, settings), AutoTokenizer.from_pretrained(folder)
    for file in sorted(settings.texts.glob("*.txt")):
        ids = tokenizer.encode(file.read_text("utf-8"), add_special_tokens=False)[: runner.max_length]
        losses, likeliest = predict(runner, ids, settings.prefill_rows)
        print(json.dumps({"losses": losses, "likeliest": likeliest}), flush=True)  # noqa: T201 - its output


if __name__ == "__main__":
    main()
