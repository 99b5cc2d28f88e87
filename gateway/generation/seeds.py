"""The seeds of one request's choices."""

import hashlib
import struct


def choice_seed(seed: int, index: int) -> int:
    """Return the signed 64-bit seed of the choice at this index; choice 0 has the request's own.

    It is a keyless hash, the same on every machine, so a choice can be decoded again alone from its own seed.
    """
    if index == 0:
        return seed
    digest = hashlib.blake2b(struct.pack("<qq", seed, index), digest_size=8, person=b"choice").digest()
    return int.from_bytes(digest, "little", signed=True)
