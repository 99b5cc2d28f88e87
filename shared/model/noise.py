"""The noise that samples are drawn with: a function of (seed, position, token id) and of nothing else.

With one noise for everyone, a sample is a function of the logits alone, so it does not matter who draws it, when, or
how many tokens at a time (Gumbel-max coupling: Daliri, Musco, Suresh, arXiv 2408.07978).
"""

import hashlib
import struct

import torch

MAX_GUMBEL = 22.2  # no noise is greater


def row_key(seed: int, position: int) -> tuple[int, int]:
    """Return the two 32-bit words that key the noise of one row: the BLAKE2b hash of its seed and position."""
    digest = hashlib.blake2b(struct.pack("<qq", seed, position), digest_size=8, person=b"outrider").digest()
    return struct.unpack("<ii", digest)


def _mix(x: torch.Tensor, sixteen: torch.Tensor, fifteen: torch.Tensor) -> torch.Tensor:
    """Scramble 32-bit words one to one: `lowbias32` of C. Wellons' Hash Prospector, in wrapping int32 arithmetic."""
    x = (x ^ (torch.bitwise_right_shift(x, sixteen) & 0xFFFF)) * 0x21F0AAAD
    x = (x ^ (torch.bitwise_right_shift(x, fifteen) & 0x1FFFF)) * 0x735A2D97
    return x ^ (torch.bitwise_right_shift(x, fifteen) & 0x1FFFF)


def gumbel(token_ids: torch.Tensor, seed: int, position: int) -> torch.Tensor:
    """Return standard Gumbel noise for these tokens at this position of a sequence with this seed.

    token_ids: [N] int32. Returns [N] float32, between -2.9 and MAX_GUMBEL.
    """
    return keyed_gumbel(token_ids, *row_key(seed, position))


def keyed_gumbel(token_ids: torch.Tensor, low: torch.Tensor | int, high: torch.Tensor | int) -> torch.Tensor:
    """Return the noise of these tokens in rows with these keys; all int32, broadcast. Returns float32."""
    # Distances of shifts are tensors, and `>>` is not used, since torch-mlir lowers no other shifts.
    distances = [torch.full((), bits, dtype=torch.int32, device=token_ids.device) for bits in (16, 15)]
    words = _mix(_mix(token_ids ^ low, *distances) ^ high, *distances)  # int32
    # 31 bits, so that small values, which are what wins, keep all of float32's precision.
    uniform = ((words & 0x7FFFFFFF).float() + 0.5) * 2.0**-31
    return -torch.log(-torch.log1p(-uniform.clamp(max=1 - 2.0**-24)))
