"""opencode, on the chat API: `opencode run`."""

import json

from agents import NUM_TOKENS, TASK, WORK, run
from features import CONTEXT, MODEL, URL, show

PROVIDER = {
    "npm": "@ai-sdk/openai-compatible",
    "name": "Outrider",
    "options": {"baseURL": URL, "apiKey": "none"},
    "models": {MODEL: {"limit": {"context": CONTEXT, "output": NUM_TOKENS}}},
}
CONFIG = {"autoupdate": False, "share": "disabled", "enabled_providers": ["outrider"], "model": f"outrider/{MODEL}"}
WORK.mkdir()
(WORK / "opencode.json").write_text(json.dumps(CONFIG | {"provider": {"outrider": PROVIDER}}))


def stream() -> str:
    """Give it a task."""
    return run("opencode", "run", TASK, OPENCODE_DISABLE_AUTOUPDATE="1", OPENCODE_DISABLE_MODELS_FETCH="1")


show(stream)
