"""Who decodes: which replicas of the target go for one another, and what clients learn of it."""

import hashlib
from collections.abc import Iterable

from shared.pb import specdec_pb2 as pb
from shared.version import VERSION

MODEL = ("weights", "tokenizer_fingerprint", "dtype", "quant", "row_exact")
"""The fields that replicas of one model share."""
WHOLE = (*MODEL, "kernel", "numerics")
"""The fields that replicas share which give the same tokens."""


def differing(a: pb.ModelIdentity, b: pb.ModelIdentity, fields: Iterable[str]) -> list[str]:
    """Return those of the fields that are not the same."""
    return [field for field in fields if getattr(a, field) != getattr(b, field)]


def system_fingerprint(identity: pb.ModelIdentity) -> str:
    """Return what changes whenever the same request may give other tokens.

    Those are decided by the identity of the replica that decodes, and by the gateway's release, which makes prompt,
    parameters and seeds of a request: `numerics` tells of no change there. So it changes with each release, also with
    one that changes no token.
    """
    return _digest([VERSION, *(repr(getattr(identity, field)) for field in WHOLE)])


def joint_fingerprint(fingerprints: Iterable[str]) -> str:
    """Return the one fingerprint of several choices, in their order: theirs, if they have the same one."""
    first, *others = in_order = list(fingerprints)
    return first if not set(others) - {first} else _digest(in_order)


def _digest(texts: Iterable[str]) -> str:
    return f"fp_{hashlib.sha256(' '.join(texts).encode()).hexdigest()[:12]}"
