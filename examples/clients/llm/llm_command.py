"""The command `llm`, which finds servers of OpenAI's API in a file in its user folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from features import DISTANCE, MODEL, NUM_TOKENS, PARAMETERS, QUESTION, SEED, URL, fits, show

RIDE = 'def ride(miles: int) -> str:\n    "Rides ahead, so many miles."\n    return f"{miles} miles ridden"\n'
ASK = ["-m", "outrider", "-o", "seed", str(SEED)]
SHORT = [*ASK, "-o", "max_tokens", str(NUM_TOKENS)]


def llm(*words: str) -> str:
    """Run the `llm` that is installed beside this Python."""
    environment = os.environ | {"LLM_USER_PATH": folder}
    command = [str(Path(sys.executable).with_name("llm")), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert not done.returncode, done.stderr
    return done.stdout


def chat() -> str:
    """Ask for a text."""
    return llm(*SHORT, "--no-stream", QUESTION).strip()


def stream() -> str:
    """Ask for the same text, in pieces, which is the command's default."""
    text = llm(*SHORT, QUESTION).strip()
    assert text == chat()
    return text


def tool() -> str:
    """Offer a tool; the command cannot require a call, so the model decides whether to make one."""
    llm(*SHORT, "--functions", RIDE, "Ride 7 miles ahead, by the tool.")
    calls = [call for entry in json.loads(llm("logs", "--json", "-n", "0")) for call in entry["tool_calls"]]
    assert calls, "the model made no call"
    return fits(calls[0]["arguments"], PARAMETERS)


def structured() -> str:
    """Ask for JSON that fits a schema."""
    return fits(llm(*ASK, "--schema", json.dumps(DISTANCE), QUESTION), DISTANCE)


with TemporaryDirectory() as folder:
    known = {"model_id": "outrider", "model_name": MODEL, "api_base": URL, "supports_tools": True}
    models = json.dumps([known | {"supports_schema": True}])  # JSON is YAML
    (Path(folder) / "extra-openai-models.yaml").write_text(models)
    show(chat, stream, tool, structured)
