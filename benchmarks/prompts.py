"""The prompts of the benchmark."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

OWN = Path(__file__).with_name("prompts.jsonl")
STRUCTURED = ("code", "edit", "json", "structured")  # kinds whose answers are predictable in large part
OPEN = "open"
WARM_UP = "Say in one sentence what a carriage is."


@dataclass(frozen=True)
class Prompt:
    """A question and what kind of answer it wants."""

    id: str
    kind: str
    text: str


def load(path: Path, limit: int | None = None) -> list[Prompt]:
    """Read JSON lines with `id`, `kind` and `prompt`; with a limit, at most that many of each kind.

    Raises OSError, and ValueError with the number of a line that is not of this form.
    """
    prompts: dict[str, list[Prompt]] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fields = json.loads(line) if line.strip().startswith("{") else None
        if not isinstance(fields, Mapping) or not all(
            isinstance(fields.get(key), str) for key in ("id", "kind", "prompt")
        ):
            raise ValueError(f"{path}, line {number}: not an object with the strings id, kind and prompt")
        prompts.setdefault(fields["kind"], []).append(Prompt(fields["id"], fields["kind"], fields["prompt"]))
    return [prompt for of_kind in prompts.values() for prompt in of_kind[:limit]]


def unseen(text: str) -> str:
    """Return the prompt with a new beginning, so that no cache has it."""
    return f"Note {secrets.token_hex(4)}. {text}"
