"""Who decodes: which replicas of the target are interchangeable, and the fingerprint that clients see."""

import hashlib
from collections.abc import Iterable

from shared.pb import specdec_pb2 as pb
from shared.version import VERSION

MODEL = ("weights", "tokenizer_fingerprint", "dtype", "quant", "row_exact")
"""The fields that replicas of one model share."""
WHOLE = (*MODEL, "kernel", "numerics", "draws")
"""The fields that replicas share if they give the same tokens."""


def differing(a: pb.ModelIdentity, b: pb.ModelIdentity, fields: Iterable[str]) -> list[str]:
    """Return the fields in which a and b differ."""
    return [field for field in fields if getattr(a, field) != getattr(b, field)]


def system_fingerprint(identity: pb.ModelIdentity) -> str:
    """Return a fingerprint that changes whenever the same request may give other tokens.

    The tokens depend on the identity of the replica that decodes, and on the gateway's release, which makes a request's
    prompt, parameters and seeds; `numerics` does not cover those. So the fingerprint changes with each release, even
    with one that changes no token.
    """
    return _digest([VERSION, *(repr(getattr(identity, field)) for field in WHOLE)])


def joint_fingerprint(fingerprints: Iterable[str]) -> str:
    """Return one fingerprint for several choices, in their order: their own if they all have the same one."""
    first, *others = in_order = list(fingerprints)
    return first if not set(others) - {first} else _digest(in_order)


def _digest(texts: Iterable[str]) -> str:
    return f"fp_{hashlib.sha256(' '.join(texts).encode()).hexdigest()[:12]}"
