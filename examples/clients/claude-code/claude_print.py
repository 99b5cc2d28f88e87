"""Claude Code, on the Messages API: `claude -p`."""

from agents import HOME, NUM_TOKENS, TASK, run
from features import MODEL, URL, show

ENVIRONMENT = {
    "ANTHROPIC_BASE_URL": URL.removesuffix("/v1"),
    "ANTHROPIC_API_KEY": "none",
    "ANTHROPIC_MODEL": MODEL,
    "ANTHROPIC_SMALL_FAST_MODEL": MODEL,
    "CLAUDE_CONFIG_DIR": str(HOME),
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",  # updates, telemetry, error reports
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(NUM_TOKENS),
}


def stream() -> str:
    """Give it a task."""
    return run("claude", "-p", TASK, **ENVIRONMENT)


show(stream)
