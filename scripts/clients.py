"""`make clients`: runs the clients of examples/clients against the gateway, and reports what works in each."""

import shutil
import subprocess
import sys
from pathlib import Path

from rich.table import Table

from scripts.stack import ROOT, console, free_port, parser, stack, status

EXAMPLES = ROOT / "examples" / "clients"
BUILD = ROOT / "build" / "clients"
FEATURES = ("chat", "stream", "tool", "structured")
CLIENTS = {
    "openai (Python)": "openai_sync.py",
    "openai (Python, async)": "openai_async.py",
    "openai (Node)": "openai_node.mjs",
    "litellm": "litellm_client.py",
    "langchain-openai": "langchain_client.py",
    "llm": "llm_command.py",
}
UNCALLED = "the model made no call"  # from `llm`, which has no `tool_choice`: a random model makes no call by itself


def run(example: str, url: str) -> dict[str, str]:
    """Run one example; return its line for each feature."""
    program: list[Path | str] = [BUILD / "venv" / "bin" / "python", EXAMPLES / example]
    if example.endswith(".mjs"):  # Node looks for packages beside the file
        program = ["node", shutil.copy(EXAMPLES / example, BUILD)]
    done = subprocess.run([*program, f"{url}/v1"], capture_output=True, text=True, timeout=600, check=False)  # noqa: S603 - ours
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    missing = (done.stderr.strip().splitlines() or ["said nothing"])[-1]
    return {feature: said.get(feature, missing) for feature in FEATURES}


def main() -> None:
    """Run them all; exit with 1 if a feature fails."""
    flags = parser(__doc__)
    flags.set_defaults(pair="toy")
    args = flags.parse_args()
    if not shutil.which("node"):
        sys.exit("no node here, which one of the clients runs on: install Node 20 or later")
    table = Table("client", *FEATURES)
    wrong = []
    with stack(args, free_port(), free_port(), free_port(), log_level="ERROR") as url:
        for client, example in CLIENTS.items():
            with status(client):
                said = run(example, url)
            cells = []
            for feature, told in said.items():
                ok = told.startswith("ok ")
                uncalled = args.pair == "toy" and told.endswith(UNCALLED)
                cells.append("ok" if ok else "no call" if uncalled else "FAILED")
                if not ok and not uncalled:
                    wrong.append(f"{client}, {feature}: {told}")
            table.add_row(client, *cells)
    console.print(table)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
