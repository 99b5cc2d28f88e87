"""JSON from outside: what is refused before it is read, and where an error is."""

import json
from typing import Any

import pytest

from gateway.requests.json_text import MAX_DEPTH, JsonTextError, parse_json

HALF, DIGITS = "is half of a character", "has too many digits"
BAD: list[tuple[bytes, tuple[str | int, ...], str]] = [
    (rb'{"a":"\ud83d"}', ("a",), HALF),
    (rb'{"a":"x\ude00x"}', ("a",), HALF),
    (rb'{"n":1,"a":["",{"b":"\ud83d\u0041"}]}', ("a", 1, "b"), HALF),
    (rb'{"a":{"\ud83d":1}}', ("a",), HALF),
    (b'{\n"n":1,\n"a":["\xff"]}', ("a", 0), "is not UTF-8"),
    (b'{"a":"\xed\xa0\xbd"}', ("a",), "is not UTF-8"),
    (b'{"a":NaN}', ("a",), "is not a JSON value"),
    (b'{"a":[1,-Infinity]}', ("a", 1), "is not a JSON number"),
    (b'{"a":{"b":[0,1e400]}}', ("a", "b", 1), "is out of range"),
    (b"-1e400", (), "is out of range"),
    (b'{"a":%s}' % (b"1" * 5000), ("a",), DIGITS),
    (b'{"a":{"b":%s}}' % (b"[" * 300), ("a",), "is nested more than 200 levels deep"),
    (b'{"a":1}}', (), "is not JSON: trailing characters"),
    (b'{"a":"x', (), "is not JSON: EOF"),
    (b"", (), "is not JSON: EOF"),
]


@pytest.mark.parametrize(("text", "path", "problem"), BAD, ids=lambda value: repr(value)[:40])
def test_an_error_says_where(text: bytes, path: tuple[str | int, ...], problem: str) -> None:
    """What no later step could take is refused, with the place of the value."""
    with pytest.raises(JsonTextError) as caught:
        parse_json(text)
    assert caught.value.path == path
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    "value",
    [{"a": [1, 2.5, None, True, 'é🐎\x00\\"\n,{[', {"b": {}}]}, "just a text", 5, [], 10**4000],
    ids=lambda value: repr(value)[:20],
)
def test_json_is_read_as_by_the_standard_library(value: Any) -> None:
    """As bytes and as text, escaped and not."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


def test_the_deepest_that_is_read_can_be_written() -> None:
    """At the limit of depth it is read, and no later."""
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text)) == text
    with pytest.raises(JsonTextError, match="200 levels"):
        parse_json(f"[[{text}]]")


def test_values_are_counted_outside_of_strings() -> None:
    """So many are read and not one more; what only looks like values, in a text, is none."""
    assert len(parse_json(b"[" + b"1," * 98 + b"1]", max_values=99)) == 99
    with pytest.raises(JsonTextError, match="more than 99 JSON values"):
        parse_json(b"[" + b"1," * 99 + b"1]", max_values=99)
    for text in ("{[," * 1000, '\\",{' * 1000, '"' * 1000 + "\\"):
        assert parse_json(json.dumps([text, text]), max_values=500) == [text, text]
    with pytest.raises(JsonTextError, match="JSON values"):
        parse_json(b'["",' + b'"",' * 99 + b'""]', max_values=9)


def test_long_numbers_of_a_large_text() -> None:
    """Numbers of thousands of digits, which take long to read, are refused where there may be many of them."""
    number = "7" * 4000
    assert parse_json(f"[{number}]") == [int(number)]
    text = "a" * 2**20
    with pytest.raises(JsonTextError, match=DIGITS):
        parse_json(f'["{text}",{number}]')
    assert parse_json(f'["{text}{number}"]') == [text + number]
