"""The noise that samples are drawn with: a function of (seed, position, token id) only.

Since everyone uses the same noise, a sample is a function of the logits alone: it does not matter who draws it, when,
or how many tokens at a time (Gumbel-max coupling: Daliri, Musco, Suresh, arXiv 2408.07978).
"""

import hashlib
import math
import struct
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

_Words = npt.NDArray[np.uint32]

_FACTORS = 0x21F0AAAD, 0x735A2D97  # of `lowbias32`


def row_key(seed: int, position: int) -> tuple[int, int]:
    """Return the two 32-bit words that key the noise of one row: the BLAKE2b hash of its seed and position."""
    digest = hashlib.blake2b(struct.pack("<qq", seed, position), digest_size=8, person=b"outrider").digest()
    return struct.unpack("<ii", digest)


def _mix(x: torch.Tensor, sixteen: torch.Tensor, fifteen: torch.Tensor) -> torch.Tensor:
    """Scramble 32-bit words one to one: `lowbias32` of C. Wellons' Hash Prospector, in wrapping int32 arithmetic."""
    x = (x ^ (torch.bitwise_right_shift(x, sixteen) & 0xFFFF)) * _FACTORS[0]
    x = (x ^ (torch.bitwise_right_shift(x, fifteen) & 0x1FFFF)) * _FACTORS[1]
    return x ^ (torch.bitwise_right_shift(x, fifteen) & 0x1FFFF)


def gumbel(token_ids: torch.Tensor, seed: int, position: int) -> torch.Tensor:
    """Return standard Gumbel noise for these tokens at this position of a sequence with this seed.

    token_ids: [N] int32. Returns [N] float32, between -2.9 and 22.2.
    """
    return keyed_gumbel(token_ids, *row_key(seed, position))


def keyed_gumbel(token_ids: torch.Tensor, low: torch.Tensor | int, high: torch.Tensor | int) -> torch.Tensor:
    """Return the noise of these tokens in rows with these keys; all int32, broadcast. Returns float32."""
    # Shift distances are tensors, and `>>` is avoided, since torch-mlir lowers no other form of shift.
    distances = [torch.full((), bits, dtype=torch.int32, device=token_ids.device) for bits in (16, 15)]
    words = _mix(_mix(token_ids ^ low, *distances) ^ high, *distances)  # int32
    # 31 bits, so that small values, which are the ones that win, keep float32's full precision.
    uniform = ((words & 0x7FFFFFFF).float() + 0.5) * 2.0**-31
    return -torch.log(-torch.log1p(-uniform.clamp(max=1 - 2.0**-24)))


def candidates_by_noise(vocab_size: int, least: float, seed: int, position: int) -> torch.Tensor:
    """Return the tokens of a vocabulary whose noise is at least `least`, and perhaps a few more. Returns [N] int64.

    The noise decreases as its word increases, so comparing words is enough: only few tokens need logarithms later.
    """
    words = _token_ids(vocab_size).copy()  # [V]
    shifted = np.empty_like(words)
    for key in row_key(seed, position):
        words ^= np.uint32(key & 0xFFFFFFFF)
        for distance, factor in zip((16, 15), _FACTORS, strict=True):  # `_mix` in place, in half the time
            words ^= np.right_shift(words, distance, out=shifted)
            words *= np.uint32(factor)
        words ^= np.right_shift(words, 15, out=shifted)
    words &= np.uint32(0x7FFFFFFF)
    highest = -math.expm1(-math.exp(-least)) * 2**31 * 1.0001  # since float32 rounds
    return torch.from_numpy((words <= highest + 1).nonzero()[0])


@lru_cache(maxsize=4)
def _token_ids(vocab_size: int) -> _Words:
    return np.arange(vocab_size, dtype=np.uint32)
