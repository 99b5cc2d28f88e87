"""Codex, on the Responses API: `codex exec`."""

import json

from agents import HOME, TASK, run
from features import DISTANCE, MODEL, QUESTION, URL, show

CONFIG = f"""
model = "{MODEL}"
model_provider = "outrider"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.outrider]
name = "Outrider"
base_url = "{URL}"
wire_api = "responses"
"""
(HOME / "config.toml").write_text(CONFIG)


def stream() -> str:
    """Give it a task."""
    return run("codex", "exec", "--skip-git-repo-check", TASK, CODEX_HOME=str(HOME))


def structured() -> str:
    """Give it a question whose answer has to fit a schema."""
    schema = HOME / "schema.json"
    schema.write_text(json.dumps(DISTANCE))
    return run("codex", "exec", "--skip-git-repo-check", "--output-schema", str(schema), QUESTION, CODEX_HOME=str(HOME))


# The reply may also be a call, of tools with texts that a random model never ends.
show(stream, *([] if MODEL == "toy" else [structured]))
