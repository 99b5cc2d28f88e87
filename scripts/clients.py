"""`make clients`: runs the clients of examples/clients against the gateway, and reports what works in each."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic

from rich.table import Table

from scripts.stack import ROOT, console, free_port, parser, stack, status
from shared.model.checkpoints.pairs import resolve_pair

EXAMPLES = ROOT / "examples" / "clients"
BUILD = ROOT / "build" / "clients"
FEATURES = ("chat", "stream", "tool", "structured")
UNCALLED = "the model made no call"  # from `llm`, which has no `tool_choice`: a random model makes no call by itself
CONTEXT = 65_536  # tokens, or the model's own: an agent's prompt has 10,000 to 20,000, and three times those of a toy
MAX_SECONDS = 2_000  # of an example; each task that it gives to an agent has 900


def longer(model: Path, folder: Path) -> Path:
    """Write a copy of a model that takes CONTEXT tokens to this folder, and return it."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": CONTEXT}), "utf-8")
    return folder


def run(example: Path, url: str) -> dict[str, str]:
    """Run one example; return its line for each feature that it has."""
    folder = BUILD / example.parent.name
    if not (folder / ".ready").exists():
        return {FEATURES[0]: "left out: it could not be installed"}
    program: list[Path | str] = [folder / "venv" / "bin" / "python", example]
    if example.suffix == ".mjs":  # Node looks for packages beside the file
        program = ["node", shutil.copy(example, folder)]
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES), "CLIENT_FOLDER": str(folder)}
    done = subprocess.run(  # noqa: S603 - ours
        [*program, f"{url}/v1"], env=environment, capture_output=True, text=True, timeout=MAX_SECONDS, check=False
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    return said or {FEATURES[0]: (done.stderr.strip().splitlines() or ["said nothing"])[-1]}


def cell(told: str, *, toy: bool) -> str:
    """Return what the table says of a feature."""
    if not told:
        return ""
    if told.startswith("left out"):
        return "left out"
    if told.startswith("ok "):
        return "ok"
    return "no call" if toy and told.endswith(UNCALLED) else "FAILED"


def main() -> None:
    """Run them all, or those that are named; exit with 1 if a feature fails."""
    flags = parser(__doc__)
    flags.add_argument("--only", default="", help="names of clients, with commas between them")
    flags.set_defaults(pair="toy", num_slots=2, max_length=CONTEXT)
    args = flags.parse_args()
    toy = args.pair == "toy" and not args.target
    if toy:
        args.target, args.draft = (
            str(longer(model, BUILD / "pair" / name))
            for model, name in zip(resolve_pair("toy"), ("toy", "draft"), strict=True)
        )
    table = Table("client", *FEATURES, "seconds")
    wrong = []
    with stack(args, free_port(), free_port(), free_port(), log_level="ERROR") as url:
        for example in sorted(path for path in EXAMPLES.glob("*/*") if path.suffix in {".py", ".mjs"}):
            if args.only and example.parent.name not in args.only.split(","):
                continue
            client, begun = f"{example.parent.name}, {example.name}", monotonic()
            with status(client):
                said = run(example, url)
            cells = {feature: cell(said.get(feature, ""), toy=toy) for feature in FEATURES}
            table.add_row(client, *cells.values(), f"{monotonic() - begun:.0f}")
            wrong += [f"{client}, {feature}: {said[feature]}" for feature, told in cells.items() if told == "FAILED"]
            for feature, told in said.items():
                if not told.startswith("ok ") or "exit code" in told:
                    console.print(f"{client}, {feature}: {told}", markup=False)
    console.print(table)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
