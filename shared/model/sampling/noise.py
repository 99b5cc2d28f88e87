"""The noise that samples are drawn with: a function of (seed, position, token id) only.

Since everyone uses the same noise, a sample is a function of the logits alone: it does not matter who draws it, when,
or how many tokens at a time (Gumbel-max coupling: Daliri, Musco, Suresh, arXiv 2408.07978).
"""

import hashlib
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

MAX_NOISE = 22.2  # just above that of the least of 2^31 words

FACTORS = 0x21F0AAAD, 0x735A2D97  # of `lowbias32`, C. Wellons' Hash Prospector


def row_key(seed: int, position: int) -> tuple[int, int]:
    """Return the two 32-bit words that key the noise of one row: the BLAKE2b hash of its seed and position."""
    digest = hashlib.blake2b(struct.pack("<qq", seed, position), digest_size=8, person=b"outrider").digest()
    return struct.unpack("<ii", digest)


def gumbel(token_ids: torch.Tensor, seed: int, position: int) -> torch.Tensor:
    """Return standard Gumbel noise for these tokens at this position of a sequence with this seed.

    token_ids: [N], any integers. Returns [N] float32, between -2.9 and MAX_NOISE.
    """
    return noise_of(torch.from_numpy(words_of(token_ids.numpy(), seed, position).view(np.int32)))


def with_noise(token_ids: npt.NDArray[np.int64], least: float, seed: int, position: int) -> npt.NDArray[np.int64]:
    """Return the places of those tokens that have noise of at least `least`, and perhaps of a few more, in their order.

    The noise decreases as its word increases, so comparing words is enough: only few tokens need logarithms later.
    """
    highest = -math.expm1(-math.exp(-least)) * 2**31 * 1.0001  # since float32 rounds
    words = words_of(token_ids, seed, position) & 0x7FFFFFFF
    return (words <= highest + 1).nonzero()[0]


def noise_of(words: torch.Tensor) -> torch.Tensor:
    """Return the noise that random words mean: int32 to float32."""
    # 31 bits, so that small values, which are the ones that win, keep float32's full precision.
    uniform = ((words & 0x7FFFFFFF).float() + 0.5) * 2.0**-31
    return -torch.log(-torch.log1p(-uniform.clamp(max=1 - 2.0**-24)))


def words_of(token_ids: npt.NDArray[Any], seed: int, position: int) -> npt.NDArray[np.uint32]:
    """Return the random words of these tokens: `lowbias32` twice, in place, in half of torch's time."""
    words = token_ids.astype(np.uint32)
    shifted = np.empty_like(words)
    for key in row_key(seed, position):
        words ^= np.uint32(key & 0xFFFFFFFF)
        for distance, factor in zip((16, 15), FACTORS, strict=True):
            words ^= np.right_shift(words, distance, out=shifted)
            words *= np.uint32(factor)
        words ^= np.right_shift(words, 15, out=shifted)
    return words
