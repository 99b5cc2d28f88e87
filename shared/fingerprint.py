"""Tells whether two tokenizers give the same tokens the same ids."""

import hashlib
from collections.abc import Mapping


def fingerprint(vocabulary: Mapping[str, int]) -> str:
    """Return the SHA-256, in hex, of the map from ids to tokens."""
    digest = hashlib.sha256()
    for token, token_id in sorted(vocabulary.items(), key=lambda item: item[1]):
        digest.update(f"{token_id} {token!r}\n".encode())
    return digest.hexdigest()
