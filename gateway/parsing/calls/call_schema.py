"""The schema that the arguments of a call are held to."""

import re
from typing import Any

from gateway.requests.tool_fields import Function
from shared.sampling_params import JSON_WHITESPACE

JSON_OPTIONS: dict[str, Any] = {"whitespace_pattern": JSON_WHITESPACE}
_FREE = {"additionalProperties", "patternProperties", "unevaluatedProperties"}
_VALUES = {"const", "enum", "default", "examples"}
_TYPES = {"null", "boolean", "integer", "number", "string", "array", "object"}
_UNREAD = re.compile(r"\(\?<?[=!]|\\[1-9]")  # patterns that look around, or back


def call_schema(function: Function) -> dict[str, Any]:
    """Return the schema of an object: the function's parameters, or one without properties if it has none.

    Unless the function is strict, keywords that the grammar has not are hints, as they are to OpenAI.
    """
    schema = function.parameters or {"properties": {}}
    closed = {"additionalProperties": False} if schema.get("properties") == {} and _FREE.isdisjoint(schema) else {}
    options, given = JSON_OPTIONS, schema.get("x-guidance")
    if not function.strict:
        options, schema = options | {"lenient": True}, _readable(schema)
    return {"type": "object"} | closed | schema | {"x-guidance": options | (given if isinstance(given, dict) else {})}


def _readable(value: Any) -> Any:
    """Return a part of a schema without what no grammar can be made of: some patterns, and keywords of wrong values."""
    if isinstance(value, list):
        return [_readable(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: one if key in _VALUES else _readable(one) for key, one in value.items() if not _is_unread(key, one)}
    if isinstance(named := kept.get("patternProperties"), dict):
        kept["patternProperties"] = {pattern: one for pattern, one in named.items() if not _UNREAD.search(pattern)}
    return kept


def _is_unread(key: str, value: Any) -> bool:
    """Return whether a keyword says nothing that a grammar could hold to; a name of a property always has a schema."""
    if key == "pattern":
        return isinstance(value, str) and is_unread(value)
    if key == "type" and isinstance(value, str | list):
        return not _TYPES.issuperset(value if isinstance(value, list) else [value])
    return value is None and (key == "enum" or key not in _VALUES)


def is_unread(pattern: str) -> bool:
    """Return whether no grammar can hold to a pattern."""
    return bool(_UNREAD.search(pattern))
