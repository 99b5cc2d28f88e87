"""The product of some rows with one tile of a K-quant, as LLVM instructions on vectors of 512 bits.

A lane holds the sum of one output; an instruction multiplies the codes of four inputs with their activations. Every row
takes the same steps in the same order, however many are computed at once: its bits depend on that row alone.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shared.model.checkpoints.k_quants import K_QUANTS, LANES, SUPERBLOCK, KQuant
from shared.model.devices.cpu.compiled_code.vector_code import (
    BYTES,
    FLOATS,
    HALVES,
    LANE_BYTES,
    LONG,
    PAIRS,
    WIDE,
    WORD,
    WORDS,
    VectorCode,
    features,
    filled,
    long,
)

_AHEAD = 8  # superblocks that are asked for before they are needed, into the second cache


class Task(IntEnum):
    """What the numbers of a product's stage mean; addresses are of contiguous arrays."""

    TILES = 4
    CHUNK = 5  # how many tiles are an item
    ROWS = 6
    SUPERBLOCKS = 7  # of a row
    WEIGHTS = 8  # [tiles, superblocks, tile_bytes] uint8
    PRODUCTS = 9  # [rows, outputs] float32, written
    OUTPUTS = 10  # of a row of PRODUCTS, of which the tiles may be a part
    STEPS = 11  # [rows, in] int8, the activations
    FACTORS = 12  # [rows, superblocks] float32, what a step is worth
    SUMS = 13  # [rows, in / 32] float32, of the steps of each block
    STARTS = 14  # [rows, in / 16] int32, the sums of 16 steps, times -32


# Rows that are computed at once; another number takes the next, its last row repeated. Without registers of 512 bits, a
# vector takes two of sixteen.
_TOGETHER = (1, 2, 4, 5, 6, 8) if WIDE else (1, 2)
MOST_ROWS = _TOGETHER[-1]


def _multiply(form: KQuant) -> Any:
    @intrinsic
    def multiply(context: Any, task: Any, tile: Any, row: Any) -> Any:
        """Multiply up to MOST_ROWS rows from `row` with a tile."""
        return types.void(types.int64, types.int64, types.int64), partial(_emit, form)

    return multiply


q4_k_tile, q5_k_tile, q6_k_tile = (_multiply(form) for form in K_QUANTS.values())


def _emit(form: KQuant, context: Any, builder: Any, _: Any, arguments: Any) -> Any:
    """Write the code for each number of rows."""
    task, tile, row = arguments
    num_rows, least = builder.sub(VectorCode(builder).load(task, 8 * Task.ROWS, LONG), row), 0
    for count in _TOGETHER:
        last = builder.icmp_signed("<=", num_rows, long(count)) if count < MOST_ROWS else cgutils.true_bit
        with builder.if_then(builder.and_(builder.icmp_signed(">", num_rows, long(least)), last)):
            _Rows(builder, form, task, row, count).multiply(tile)
        least = count
    return context.get_dummy_value()


class _Rows(VectorCode):
    """Writes the code for a number of rows."""

    def __init__(self, builder: Any, form: KQuant, task: Any, row: Any, count: int) -> None:
        super().__init__(builder)
        self._form, self._count = form, count
        self._task = {place: self.load(task, 8 * place, LONG) for place in Task}
        last = builder.sub(self._task[Task.ROWS], long(1))
        self._rows = [self.smaller(builder.add(row, long(place)), last) for place in range(count)]

    def multiply(self, tile: Any) -> None:
        """Add up the superblocks, and write the products."""
        b, form, task = self.builder, self._form, self._task
        supers = task[Task.SUPERBLOCKS]
        first = self.at(task[Task.WEIGHTS], b.mul(tile, supers), form.tile_bytes)
        totals = self.zeros(self._count)
        with cgutils.for_range(b, supers) as loop:
            weights = self.at(first, loop.index, form.tile_bytes)
            places = [b.add(b.mul(row, supers), loop.index) for row in self._rows]
            factors = [self.splat(self.at(task[Task.FACTORS], place, 4), 0, FLOATS) for place in places]
            for total, sums, factor in zip(totals, self._superblock(weights, places), factors, strict=True):
                b.store(self.fma(sums, factor, b.load(total)), total)
        for row, total in zip(self._rows, totals, strict=True):
            place = b.add(b.mul(row, task[Task.OUTPUTS]), b.mul(tile, long(LANES)))
            self.store(b.load(total), self.at(task[Task.PRODUCTS], place, 4))

    def _superblock(self, weights: Any, places: Sequence[Any]) -> list[Any]:
        """Return each row's sums over one superblock. places: the number of each row's superblock."""
        b, form, task = self.builder, self._form, self._task
        steps = [self.at(task[Task.STEPS], place, SUPERBLOCK) for place in places]
        starts = [self.at(task[Task.STARTS], place, 4 * form.num_blocks) for place in places]
        block_sums = [self.at(task[Task.SUMS], place, 4 * form.num_blocks) for place in places]
        factor, minimum_factor = (self._factors(weights, form.factor_at + 2 * LANES * place) for place in (0, 1))
        totals = self.zeros(self._count)
        with cgutils.for_range(b, long(form.num_blocks)) as loop:
            block = loop.index
            scales = self._scales(self.at(weights, block, LANES), form.scales_at, factor)
            dots = [filled(WORDS, 0)] * self._count
            if not form.has_minimums:
                dots = [self.splat(self.at(start, block, 4), 0, WORDS) for start in starts]
            of_block = [self.at(of_row, block, form.block) for of_row in steps]
            for quad, code in enumerate(self._codes(weights, block)):
                given = [b.bitcast(self.splat(of_row, 4 * quad, WORDS), BYTES) for of_row in of_block]
                dots = [self._dot(dot, code, four) for dot, four in zip(dots, given, strict=True)]
            sums = [
                self.fma(b.sitofp(dot, FLOATS), scales, b.load(total)) for dot, total in zip(dots, totals, strict=True)
            ]
            if form.has_minimums:
                minimums = b.fneg(self._scales(self.at(weights, block, LANES), form.minimums_at, minimum_factor))
                of_rows = [self.splat(self.at(of_row, block, 4), 0, FLOATS) for of_row in block_sums]
                sums = [self.fma(minimums, of_row, total) for of_row, total in zip(of_rows, sums, strict=True)]
            for new, total in zip(sums, totals, strict=True):
                b.store(new, total)
        return [b.load(total) for total in totals]

    def _codes(self, weights: Any, block: Any) -> Iterator[Any]:
        """Yield a block's codes of each four inputs, and ask for the lines at the same place further ahead."""
        b, form = self.builder, self._form
        num_quads = form.block // 4
        lines = -(-form.tile_bytes // 64 // form.num_blocks)
        ahead, low_at = self.at(weights, block, 64 * lines), self.at(weights, block, 32 * num_quads)
        high = self.load(self.at(weights, block, 64), form.high_at, BYTES) if form.high_bits else None
        for quad in range(num_quads):
            if quad < lines:
                self.prefetch(ahead, _AHEAD * form.tile_bytes + 64 * quad)
            low = self.load(low_at, 32 * (quad - quad % 2), BYTES)
            code = b.and_(self._shifted(low, -4) if quad % 2 else low, filled(BYTES, 15))
            if form.high_bits:
                mask = filled(BYTES, ((1 << form.high_bits) - 1) << 4)
                code = b.or_(code, b.and_(self._shifted(high, 4 - form.high_bits * quad), mask))
            yield code

    def _dot(self, sums: Any, codes: Any, steps: Any) -> Any:
        """Add to each lane the products of its four codes and steps."""
        b = self.builder
        if "avx512vnni" in features():
            return self.call("llvm.x86.avx512.vpdpbusd.512", WORDS, sums, codes, steps)
        ones = filled(PAIRS, 1)
        if WIDE:
            pairs = self.call("llvm.x86.avx512.pmaddubs.w.512", PAIRS, codes, steps)
            return b.add(sums, self.call("llvm.x86.avx512.pmaddw.d.512", WORDS, pairs, ones))
        words = []
        for half in (0, 1):
            left, right = (self.half(of, half) for of in (codes, steps))
            pairs = self.call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(ir.IntType(16), 16), left, right)
            words.append(self.call("llvm.x86.avx2.pmadd.wd", ir.VectorType(WORD, 8), pairs, self.half(ones, 0)))
        both = ir.Constant(ir.VectorType(WORD, 16), list(range(16)))
        return b.add(sums, b.shuffle_vector(*words, both))

    def _factors(self, weights: Any, offset: int) -> Any:
        return self.builder.fpext(self.load(weights, offset, HALVES), FLOATS)

    def _scales(self, weights: Any, offset: int, factors: Any) -> Any:
        """Return a block's scales or minimums, times their factor: signed bytes, the latter below 64."""
        words = self.builder.sext(self.load(weights, offset, LANE_BYTES), WORDS)
        return self.builder.fmul(self.builder.sitofp(words, FLOATS), factors)

    def _shifted(self, vector: Any, bits: int) -> Any:
        """Shift bytes left, or right if negative; neighbours' bits come in, and must be masked."""
        if not bits:
            return vector
        shift = self.builder.shl if bits > 0 else self.builder.lshr
        pairs = shift(self.builder.bitcast(vector, PAIRS), filled(PAIRS, abs(bits)))
        return self.builder.bitcast(pairs, BYTES)
