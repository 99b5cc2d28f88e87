"""Counts what makes a grammar's masks expensive, before it is compiled.

Where many patterns may begin at one place, each byte of each token is matched against all of them: with 1,000 patterns
a mask takes seconds, in which no other session runs. Literal texts cost next to nothing.
"""

import json
import re
from typing import Any

from shared.errors import InvalidFieldError
from shared.sampling_params import Grammar

MAX_LARK_PATTERNS = 128
MAX_SCHEMA_PATTERNS = 512  # few of which may begin at one place in any schema that is not made for it

# A string, which hides what is in it; or a regular expression, a range of characters, a class of GBNF.
_LARK_TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|(?P<pattern>/(?:\\.|[^/\\\n])+/|\.\.|\[(?:\\.|[^\]\\\n])+\])')
_PATTERNS = {
    "pattern", "format", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf",
}  # fmt: skip


def check_size(grammar: Grammar) -> None:
    """Raise InvalidFieldError if the grammar has too many patterns."""
    count, most = 0, MAX_LARK_PATTERNS
    if grammar.kind == "lark":
        count = sum(bool(token["pattern"]) for token in _LARK_TOKEN.finditer(grammar.text))
    elif grammar.kind == "json_schema":
        count, most = _in_schema(grammar.text), MAX_SCHEMA_PATTERNS
    if count > most:
        raise InvalidFieldError(grammar.kind, f"{count} patterns, at most {most}")


def _in_schema(text: str) -> int:
    """Return how many parts of a schema limit a string or a number; 0 for what is no JSON, which fails to compile."""
    try:
        left: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):
        return 0
    count = 0
    while left:
        part = left.pop()
        if isinstance(part, dict):
            count += not _PATTERNS.isdisjoint(part)
            count += len(part.get("patternProperties") or ())
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return count
