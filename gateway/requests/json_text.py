"""JSON from outside: bounded before it is read, and free of what later steps choke on."""

import math
import re
from typing import Any

from pydantic_core import from_json

Path = tuple[str | int, ...]
MAX_VALUES = 100_000
MAX_DEPTH = 200  # the parser's own limit; all that later walks or writes the values goes deeper
SHORT, LONG_NUMBER, ZEROS = 2**20, b"0" * 400, bytes.maketrans(b"123456789", b"0" * 9)
"""In more bytes than the first, numbers of so many digits take too long to read."""
PROBLEMS = {  # what the parser says, and what it means
    "recursion limit": f"is nested more than {MAX_DEPTH} levels deep",
    "hex escape": r"has an escape such as \ud83d that is half of a character",
    "unicode code point": "is not UTF-8",
    "number out of range": "has too many digits",
    "invalid number": "is not a JSON number",
    "expected value": "is not a JSON value",
}


class JsonTextError(ValueError):
    """A text that is no JSON, or more of it than is read."""

    def __init__(self, problem: str, path: Path = ()) -> None:
        """Say what is wrong, and where if that is known."""
        super().__init__(problem)
        self.problem, self.path = problem, path


def parse_json(text: str | bytes, max_values: int = MAX_VALUES) -> Any:
    """Return the value, of which each string is Unicode and each number is finite. Raises JsonTextError."""
    data = text.encode() if isinstance(text, str) else text
    _check_size(data, max_values)
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise _explained(data, str(error)) from None
    if (path := _path_to_infinity(value)) is not None:
        raise JsonTextError("is out of range", path)
    return value


def _check_size(data: bytes, max_values: int) -> None:
    """Refuse too many values, of which there are no more than objects, arrays and commas, and numbers too long."""
    many, long = _num_marks(data) > max_values, len(data) > SHORT and LONG_NUMBER in data.translate(ZEROS)
    if not many and not long:
        return
    bare = data.replace(rb"\\", b"").replace(rb"\"", b"")
    # What is in quotes does not count; of one value there are two, and two of its key.
    few = bare.count(b'"') <= 4 * max_values
    parts = bare.split(b'"')[::2] if few else []
    if not few or (many and sum(map(_num_marks, parts)) > max_values):
        raise JsonTextError(f"has more than {max_values} JSON values")
    if long and any(LONG_NUMBER in part.translate(ZEROS) for part in parts):
        raise JsonTextError(PROBLEMS["number out of range"])


def _num_marks(data: bytes) -> int:
    return sum(data.count(mark) for mark in b"{[,")


def _path_to_infinity(value: Any) -> Path | None:
    """Return where a number such as 1e400 is that a float cannot hold."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ()
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in parts:
        if isinstance(one, float | dict | list) and (path := _path_to_infinity(one)) is not None:
            return (key, *path)
    return None


def _explained(data: bytes, said: str) -> JsonTextError:
    """Return the parser's error in the words of the API, with the field that it is in."""
    kind = next((kind for kind in PROBLEMS if kind in said), None)
    if kind is None:
        return JsonTextError(f"is not JSON: {said}")
    return JsonTextError(PROBLEMS[kind], _path_to_error(data, kind))


def _path_to_error(data: bytes, kind: str) -> Path:
    """Return the last value before the error: read up to there, as from a text that is not complete yet."""
    line = data.replace(b"\n", b" ")  # columns are counted from the line's beginning
    try:
        from_json(line, allow_inf_nan=False)
    except ValueError as error:
        column = re.search(r"column (\d+)$", str(error))
        before = line[: int(column[1]) - 1] if column else b""
    else:
        return ()
    if kind == "hex escape":
        before = before[: before.rfind(rb"\u")]
    elif kind in {"invalid number", "number out of range", "expected value"}:
        before = before.rstrip(b"+-.0123456789eE") + b'""'  # in place of the value
    try:
        value = from_json(before, allow_partial="trailing-strings")
    except ValueError:
        return ()
    path: Path = ()
    while isinstance(value, dict | list) and value:
        last = next(reversed(value)) if isinstance(value, dict) else len(value) - 1
        path, value = (*path, last), value[last]
    return path[:1] if kind == "recursion limit" else path
