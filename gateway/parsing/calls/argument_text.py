"""An argument that a model writes as plain text, made into JSON by the schema of its parameter."""

import json
from collections.abc import Iterator
from typing import Any

from gateway.parsing.calls.lax_json import LaxJson
from gateway.requests.json_text import parse_json

Json = dict[str, Any]
_ALIASES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "array",
}  # fmt: skip
_OF_PYTHON: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array", type(None): "null",
}  # fmt: skip
_MAX_DEPTH = 8  # of references


class ArgumentText:
    """Takes a text piece by piece and passes it on as JSON: a string as it comes, any other value at its end.

    What is none of the schema's types is a string, since that loses nothing. So is what has a schema without types.
    """

    def __init__(self, types: frozenset[str]) -> None:
        """Begin a value of one of these types, as JSON schemas call them."""
        self._types = types
        self._held: list[str] = []  # what may yet be something else than a string
        self._is_string = types <= {"string"}
        self._begun = False

    def push(self, text: str) -> str:
        """Return what this text adds to the value."""
        if not self._is_string:
            self._held.append(text)
            if not self._types <= {"string", "null"} or "null".startswith(text := "".join(self._held)):
                return ""
            self._is_string = True
        quote, self._begun = "" if self._begun else '"', True
        return quote + json.dumps(text, ensure_ascii=False)[1:-1]

    def finish(self) -> str:
        """Return the rest of the value."""
        if self._is_string:
            return '"' if self._begun else '""'
        return _converted("".join(self._held), self._types)

    def cut(self) -> str:
        """Return the rest of a value that is cut off."""
        return "" if self._is_string else "".join(self._held).strip()


def types_of(schema: Any, root: Json) -> frozenset[str]:
    """Return the types that a schema allows, as far as it names any; its references are to definitions in `root`."""
    return frozenset(_types(schema, root, 0))


def _types(schema: Any, root: Json, depth: int) -> Iterator[str]:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return
    named = schema.get("type")
    if names := [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str)]:
        yield from (_ALIASES.get(one, one) for one in names)
        yield from ["null"] * (schema.get("nullable") is True)
        return
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    yield from (_OF_PYTHON[type(value)] for value in values if type(value) in _OF_PYTHON)
    for key in ("anyOf", "oneOf", "allOf"):
        for one in schema[key] if isinstance(schema.get(key), list) else []:
            yield from _types(one, root, depth + 1)
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#/"):
        yield from _types(_resolved(reference, root), root, depth + 1)


def _resolved(reference: str, root: Json) -> Any:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def _converted(text: str, types: frozenset[str]) -> str:
    """Return a whole value as JSON."""
    written = text.strip()
    lowered = {"none": "null"}.get(written.lower(), written.lower())
    if (lowered == "null" and "null" in types) or (lowered in {"true", "false"} and "boolean" in types):
        return lowered
    for candidate in (written, _mended(written)):
        try:
            value = parse_json(candidate)
        except (ValueError, RecursionError):
            continue
        kind = _OF_PYTHON[type(value)]
        if kind == "number" and "number" not in types and "integer" in types and value.is_integer():
            return str(int(value))
        if kind in types or (kind == "integer" and "number" in types):
            return candidate
    return json.dumps(text, ensure_ascii=False)


def _mended(text: str) -> str:
    """Return an object or an array as JSON where that is clear; otherwise the text, or what is no JSON."""
    if not text.startswith(("{", "[")):
        return text
    reader = LaxJson()
    pieces = [piece for piece, _ in reader.push(text)]
    return "".join(pieces) if reader.ended and not reader.rest.strip() else text
