"""What each example asks, and how it reports the outcome: `python NAME.py http://127.0.0.1:8000/v1`.

An example finds this file by PYTHONPATH=examples/clients.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

from jsonschema import Draft202012Validator

URL = sys.argv[1]
with urlopen(f"{URL}/models") as answer:  # noqa: S310 - the gateway
    served = json.load(answer)["data"][0]
MODEL, CONTEXT = served["id"], served["max_model_len"]

QUESTION = "How far is it from London to Dover?"
SEED = 7  # gives the same text each time, streamed or not
NUM_TOKENS = 60
ROOM = 2000
"""Tokens for what has to be complete, where a number has to be given."""
MILES = {"type": "integer", "minimum": 0, "maximum": 999}
PARAMETERS = {"type": "object", "properties": {"miles": MILES}, "required": ["miles"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "ride", "description": "Rides ahead.", "parameters": PARAMETERS}}
UNIT = {"enum": ["miles", "km"]}
DISTANCE = PARAMETERS | {"properties": {"length": MILES, "unit": UNIT}, "required": ["length", "unit"]}


def fits(value: str | dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a value as JSON text. Raises ValueError if it is not JSON, ValidationError if not of this schema."""
    value = json.loads(value) if isinstance(value, str) else value
    Draft202012Validator(schema).validate(value)
    return json.dumps(value)


def show(*features: Callable[[], Any]) -> None:
    """Run each feature, print a line with its result, and exit with 1 if one failed."""
    failed = False
    with asyncio.Runner() as loop:
        for feature in features:
            name = feature.__name__
            try:
                result = feature()
                told = loop.run(result) if asyncio.iscoroutine(result) else result
                assert told, "nothing came"
                print(f"{name}: ok {told!r:.80}", flush=True)
            except Exception as error:  # noqa: BLE001 - whatever a client raises is its result
                failed = True
                print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
    sys.exit(failed)
