"""Random JSON schemas, of the kinds that llguidance supports, none of which asks for endless output."""

from random import Random
from typing import Any

Schema = dict[str, Any]
WORDS = ["name", "größe", "a b", 'quo"te', "n", "items", "back\\slash", "年", "x-1"]
FORMATS = ["date", "uuid", "ipv4"]
PATTERNS = ["^[a-z]{2,5}$", "^(yes|no)$", r"^\d{3}-\d{2}$", "^[A-Z][a-z]{0,3}$"]


def random_schema(rng: Random, depth: int = 3) -> Schema:
    """Return a schema of nested objects and arrays, at most `depth` deep."""
    leaves, nodes = [_string, _number, _constant], [_any_of, _object, _array, _reference]
    makers = [_object, _object, _array] if depth == 3 else [*leaves, *(nodes if depth else [])]
    return rng.choice(makers)(rng, depth)


def _string(rng: Random, _depth: int) -> Schema:
    kind = rng.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": rng.choice(FORMATS)}
    low = rng.randint(0, 4)
    return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 6)}


def _number(rng: Random, _depth: int) -> Schema:
    low = rng.randint(-1000, 1000)
    schema: Schema = {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 5000)}
    if rng.random() < 0.2:
        schema = {"type": "integer", "minimum": 0, "exclusiveMaximum": 90, "multipleOf": rng.choice([2, 5, 7])}
    return schema


def _constant(rng: Random, _depth: int) -> Schema:
    return rng.choice(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"const": rng.choice(WORDS)},
            {"enum": [*rng.sample(WORDS, 3), 5, None, True]},
            {"enum": [rng.randint(0, 99) for _ in range(3)]},
        ]
    )


def _any_of(rng: Random, depth: int) -> Schema:
    return {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]}


def _reference(_rng: Random, _depth: int) -> Schema:
    return {"$ref": "#/$defs/part"}


def _object(rng: Random, depth: int) -> Schema:
    names = rng.sample(WORDS, rng.randint(depth // 3, 3))
    schema: Schema = {
        "type": "object",
        "properties": {name: random_schema(rng, depth - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
        "additionalProperties": False,
    }
    return schema | ({"$defs": {"part": random_schema(rng, 0)}} if depth == 3 else {})


def _array(rng: Random, depth: int) -> Schema:
    low = rng.randint(0, 2)
    schema: Schema = {"type": "array", "items": random_schema(rng, depth - 1)}
    schema |= {"minItems": low, "maxItems": low + rng.randint(0, 2)}
    if rng.random() < 0.3:
        schema["prefixItems"] = [random_schema(rng, 0)]
        schema["maxItems"] += 1
    return schema | ({"$defs": {"part": random_schema(rng, 0)}} if depth == 3 else {})
