"""aider, on the chat API: `aider --message`."""

import json

from agents import HOME, NUM_TOKENS, run
from features import CONTEXT, MODEL, URL, show

NAME = f"openai/{MODEL}"
LIMITS = {"max_input_tokens": CONTEXT, "max_output_tokens": NUM_TOKENS, "litellm_provider": "openai", "mode": "chat"}
(HOME / "metadata.json").write_text(json.dumps({NAME: LIMITS}))  # without it, aider fetches what all models cost
(HOME / "settings.yml").write_text(json.dumps([{"name": NAME, "extra_params": {"max_tokens": NUM_TOKENS}}]))
FLAGS = f"""
    --model {NAME} --model-metadata-file {HOME}/metadata.json --model-settings-file {HOME}/settings.yml
    --no-git --yes-always --no-pretty --no-check-update --no-show-release-notes --analytics-disable
""".split()


def stream() -> str:
    """Give it a task."""
    keys = {"OPENAI_API_BASE": URL, "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return run("aider", *FLAGS, "--message", "Make add.py add.", "add.py", **keys)


show(stream)
