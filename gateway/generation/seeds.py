"""The seeds of one request's choices."""

import hashlib
import struct


def choice_seed(seed: int, index: int) -> int:
    """Return the signed 64-bit seed of the choice of this index; choice 0 has the request's own.

    Being a keyless hash, it is the same on every machine: a choice can be decoded again alone, by its own seed.
    """
    if index == 0:
        return seed
    digest = hashlib.blake2b(struct.pack("<qq", seed, index), digest_size=8, person=b"choice").digest()
    return int.from_bytes(digest, "little", signed=True)
