"""The K-quants of llama.cpp, Q4_K, Q5_K and Q6_K, in an order that vector instructions read without a detour.

256 neighbouring inputs of one output are a superblock, which has blocks of 32 or 16 inputs. A weight is a whole number,
its code, times its block's scale, less its block's minimum; scales and minimums are small whole numbers themselves,
times a factor of the superblock. All of that is kept as the file has it, so nothing is rounded again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from gguf.quants import Q4_K
from numpy.typing import NDArray

SUPERBLOCK = 256  # inputs
HEAD_GRAIN = 32  # an attention head has a multiple of this many numbers: as many are computed at once
LANES = 16  # outputs that are computed at once: one in each lane of a vector of 512 bits
_LINE = 64  # bytes; a superblock of a tile takes whole lines of the processor's cache
_PAIR = 8  # inputs whose codes share a byte two by two: four in the low halves, four in the high ones

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class KQuant:
    """One of the forms. A tile, the superblock of LANES outputs, is laid out as the offsets say."""

    name: str
    high_bits: int
    """How many bits a code has beyond four."""
    block: int
    """How many inputs share a scale."""
    has_minimums: bool
    """Whether blocks have minimums; if not, a code of `middle` stands for zero."""

    @property
    def num_blocks(self) -> int:
        """How many blocks a superblock has."""
        return SUPERBLOCK // self.block

    @property
    def middle(self) -> int:
        """The code that stands for zero, in forms without minimums."""
        return 0 if self.has_minimums else 1 << (3 + self.high_bits)

    @property
    def high_at(self) -> int:
        """Where the codes' high bits begin, in bytes; their low ones come first."""
        return LANES * SUPERBLOCK // 2

    @property
    def factor_at(self) -> int:
        """Where the factors of the scales begin, and after them those of the minimums: float16, [LANES] each."""
        return self.high_at + LANES * SUPERBLOCK * self.high_bits // 8

    @property
    def scales_at(self) -> int:
        """Where the scales begin, and after them the minimums: bytes, [num_blocks, LANES] each."""
        return self.factor_at + 2 * LANES * (1 + self.has_minimums)

    @property
    def minimums_at(self) -> int:
        """Where the minimums begin."""
        return self.scales_at + self.num_blocks * LANES

    @property
    def tile_bytes(self) -> int:
        """How many bytes a superblock of LANES outputs takes."""
        used = self.minimums_at + self.num_blocks * LANES * self.has_minimums
        return -(-used // _LINE) * _LINE


_FORMS = (
    KQuant("Q4_K", high_bits=0, block=32, has_minimums=True),
    KQuant("Q5_K", high_bits=1, block=32, has_minimums=True),
    KQuant("Q6_K", high_bits=2, block=16, has_minimums=False),
)
K_QUANTS = {form.name: form for form in _FORMS}


@dataclass(frozen=True)
class _Blocks:
    """The numbers that a weight is made of."""

    codes: _Bytes  # [out, superblocks, 256]
    scales: NDArray[np.int8]  # [out, superblocks, num_blocks]
    minimums: _Bytes | None  # likewise
    factors: NDArray[np.float16]  # [out, superblocks]
    minimum_factors: NDArray[np.float16] | None  # likewise


def laid_out(raw: _Bytes, form: KQuant) -> torch.Tensor:
    """Lay out a tensor of a GGUF file. raw: [out, bytes]; returns [out / LANES, superblocks, tile_bytes] uint8."""
    return _tiles(_read(raw, form), form)


def rounded_to(weight: torch.Tensor, form: KQuant) -> torch.Tensor:
    """Round a weight to a form, for trials: llama.cpp searches for better scales. weight: [out, in] float32.

    Returns the layout.
    """
    blocks = weight.numpy().reshape(len(weight), -1, form.num_blocks, form.block)
    top = float((16 << form.high_bits) - 1)
    if form.has_minimums:
        lowest = np.minimum(blocks.min(-1), 0)
        widths, offsets = (blocks.max(-1).clip(0) - lowest) / top, -lowest
    else:
        widths, offsets = np.abs(blocks).max(-1) / np.float32(form.middle - 1), np.zeros(blocks.shape[:-1], np.float32)
    largest = 63.0 if form.has_minimums else 127.0
    factors, minimum_factors = ((of.max(-1) / largest).astype(np.float16) for of in (widths, offsets))  # [out, supers]
    scales = _steps(widths, factors[..., None], 1, largest)
    minimums = _steps(offsets, minimum_factors[..., None], 0, largest)
    steps = (factors[..., None] * scales.astype(np.float32))[..., None]
    shifted = blocks + (minimum_factors[..., None] * minimums.astype(np.float32))[..., None]
    numbers = _steps(shifted, steps, -form.middle, top - form.middle) + form.middle
    codes = numbers.astype(np.uint8).reshape(*factors.shape, SUPERBLOCK)
    has = form.has_minimums
    found = _Blocks(codes, scales.astype(np.int8), minimums.astype(np.uint8) if has else None, factors,
                    minimum_factors if has else None)  # fmt: skip
    return _tiles(found, form)


def _steps(numbers: NDArray[np.float32], step: NDArray[np.floating], least: float, most: float) -> NDArray[np.float32]:
    sizes = np.maximum(step.astype(np.float32), np.float32(1e-30))
    rounded: NDArray[np.float32] = np.rint(numbers / sizes).clip(least, most)
    return rounded


def weight_of(tiles: torch.Tensor, form: KQuant) -> torch.Tensor:
    """Return the weight that was laid out. tiles: [out / LANES, superblocks, tile_bytes]; [out, in] float32."""
    num_tiles, supers, _ = tiles.shape

    def part(start: int, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        """Return what lies there of each tile, as [num_tiles, LANES, supers, ...]."""
        stop = start + dtype.itemsize * int(np.prod(shape))
        return tiles[..., start:stop].contiguous().view(dtype).view(num_tiles, supers, *shape)

    pairs = part(0, (SUPERBLOCK // _PAIR, LANES, 4))
    codes = torch.stack([pairs & 15, pairs >> 4], 3)  # [num_tiles, supers, pairs, 2, LANES, 4]
    codes = codes.view(num_tiles, supers, -1, LANES, 4)
    if form.high_bits:
        per_byte = 8 // form.high_bits
        high = part(form.high_at, (SUPERBLOCK // 4 // per_byte, LANES, 4))
        each = [(high >> (form.high_bits * place)) & ((1 << form.high_bits) - 1) for place in range(per_byte)]
        codes = codes | (torch.stack(each, 3).view_as(codes) << 4)
    codes = codes.permute(0, 3, 1, 2, 4).reshape(num_tiles, LANES, supers, form.num_blocks, form.block)
    scales = part(form.scales_at, (form.num_blocks, LANES), torch.int8).permute(0, 3, 1, 2)
    factors = part(form.factor_at, (LANES,), torch.float16).float().transpose(1, 2)[..., None]
    weight = codes.float().sub_(form.middle).mul_((scales * factors)[..., None])
    if form.has_minimums:
        minimums = part(form.minimums_at, (form.num_blocks, LANES)).permute(0, 3, 1, 2)
        factors = part(form.factor_at + 2 * LANES, (LANES,), torch.float16).float().transpose(1, 2)[..., None]
        weight.sub_((minimums * factors)[..., None])
    return weight.reshape(num_tiles * LANES, supers * SUPERBLOCK)


def _read(raw: _Bytes, form: KQuant) -> _Blocks:
    """Read what gguf's `dequantize` multiplies. raw: [out, bytes]."""
    num_bytes = 144 + 32 * form.high_bits if form.has_minimums else 210
    blocks = raw.reshape(len(raw), -1, num_bytes)

    def codes(low: _Bytes, together: int, high: _Bytes | None) -> _Bytes:
        """Join the halves of codes; `together` of them follow each other in low halves, then in high ones."""
        shared = low.reshape(*low.shape[:2], -1, 1, together)
        whole: _Bytes = (shared >> np.array([[0], [4]], np.uint8) & np.uint8(15)).reshape(*low.shape[:2], SUPERBLOCK)
        if high is None:
            return whole
        bits = form.high_bits
        shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
        upper = high.reshape(*high.shape[:2], -1, 1, 32) >> shifts & np.uint8((1 << bits) - 1)
        whole |= upper.reshape(whole.shape) << np.uint8(4)
        return whole

    def halves(numbers: _Bytes) -> NDArray[np.float16]:
        return np.ascontiguousarray(numbers).view(np.float16)[..., 0]

    if form.has_minimums:
        high_end = 16 + 32 * form.high_bits
        high = blocks[..., 16:high_end] if form.high_bits else None
        packed = np.ascontiguousarray(blocks[..., 4:16]).reshape(-1, 12)
        scales, minimums = (of.reshape(*blocks.shape[:2], 8) for of in Q4_K.get_scale_min(packed))
        found = codes(blocks[..., high_end:], 32, high)
        return _Blocks(found, scales.view(np.int8), minimums, halves(blocks[..., :2]), halves(blocks[..., 2:4]))
    low, high, scales = blocks[..., :128], blocks[..., 128:192], np.ascontiguousarray(blocks[..., 192:208])
    return _Blocks(codes(low, 64, high), scales.view(np.int8), None, halves(blocks[..., 208:]), None)


def _tiles(blocks: _Blocks, form: KQuant) -> torch.Tensor:
    num_outputs, supers, _ = blocks.codes.shape
    num_tiles = num_outputs // LANES
    tiles = np.zeros((num_tiles, supers, form.tile_bytes), np.uint8)

    def put(start: int, numbers: NDArray[np.generic]) -> None:
        """Write numbers, [num_tiles, supers, ...], into each tile."""
        flat = np.ascontiguousarray(numbers).reshape(num_tiles, supers, -1).view(np.uint8)
        tiles[..., start : start + flat.shape[-1]] = flat

    quads = blocks.codes.reshape(num_tiles, LANES, supers, -1, 4).transpose(0, 2, 3, 1, 4)  # four inputs of each output
    low, high = quads & 15, quads >> 4  # [num_tiles, supers, quads, LANES, 4]
    put(0, low[:, :, 0::2] | low[:, :, 1::2] << 4)
    if form.high_bits:
        per_byte = 8 // form.high_bits
        places = [high[:, :, place::per_byte] << np.uint8(form.high_bits * place) for place in range(per_byte)]
        put(form.high_at, np.bitwise_or.reduce(places))

    def by_lane(numbers: NDArray[np.generic]) -> NDArray[np.generic]:
        """Put the lanes last. numbers: [out, supers, ...]; returns [num_tiles, supers, ..., LANES]."""
        return np.moveaxis(numbers.reshape(num_tiles, LANES, *numbers.shape[1:]), 1, -1)

    put(form.factor_at, by_lane(blocks.factors))
    put(form.scales_at, by_lane(blocks.scales))
    if blocks.minimums is not None and blocks.minimum_factors is not None:
        put(form.factor_at + 2 * LANES, by_lane(blocks.minimum_factors))
        put(form.minimums_at, by_lane(blocks.minimums))
    return torch.from_numpy(tiles)
