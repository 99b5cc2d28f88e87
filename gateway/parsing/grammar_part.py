"""Grammars as parts of others."""

import json
import re

from gateway.parsing.calls.call_schema import JSON_OPTIONS
from shared.sampling_params import Grammar


def as_part(grammar: Grammar) -> str | None:
    """Return a grammar as a part of a rule in Lark; None if it can be none: the target says what is wrong with it."""
    match grammar.kind:
        case "regex":
            return "/" + re.sub(r"(?<!\\)/", r"\/", grammar.text) + "/"
        case "lark":  # or GBNF
            written = json.dumps(grammar.text, ensure_ascii=False)
            return f"%gbnf {written}" if "::=" in grammar.text else f"%lark {{\n{grammar.text}\n}}"
    try:
        return f"%json {json.dumps({'x-guidance': JSON_OPTIONS} | json.loads(grammar.text))}"
    except (ValueError, TypeError):
        return None
