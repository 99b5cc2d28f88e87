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

from shared.model.checkpoints.k_quants import K_QUANTS, LANES, KQuant
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

GROUP = 32  # inputs of a row that are rounded to their own largest magnitude


class Task(IntEnum):
    """What the numbers of a product's stage mean; addresses are of contiguous arrays."""

    TILES = 4
    CHUNK = 5  # how many tiles are an item
    ROWS = 6
    SUPERBLOCKS = 7  # of a row
    WEIGHTS = 8  # [tiles, superblocks, tile_bytes] uint8
    PRODUCTS = 9  # [rows, outputs] float32, written
    OUTPUTS = 10  # of a row of PRODUCTS, of which the tiles may be a part
    ROUNDED = 11  # [rows / NEIGHBOURS, superblocks, NEIGHBOURS, ROUNDED_BYTES], the activations, see below


# A superblock of a row: steps of 8 bits, then for each GROUP what a step is worth, float32, and the sum of its steps
# times that, likewise; then for each 16 the sum of their steps times -32, int32.
FACTORS_AT, SUMS_AT, STARTS_AT, ROUNDED_BYTES = 256, 288, 320, 384
NEIGHBOURS = 8  # rows whose superblocks lie side by side, so that one address and constants lead to all


# Rows that are computed at once; another number takes the next, and what comes of memory beyond is not written. Without
# registers of 512 bits, a vector takes two of sixteen.
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
            _Rows(builder, form, task, row, (least, count)).multiply(tile)
        least = count
    return context.get_dummy_value()


class _Rows(VectorCode):
    """Writes the code for a number of rows."""

    def __init__(self, builder: Any, form: KQuant, task: Any, row: Any, counts: tuple[int, int]) -> None:
        """Write it for more rows than the first number, and at most the second."""
        super().__init__(builder)
        self._form, self._row, (self._least, self._count) = form, row, counts
        self._task = {place: self.load(task, 8 * place, LONG) for place in Task}

    def multiply(self, tile: Any) -> None:
        """Add up the superblocks, and write the products."""
        b, form, task = self.builder, self._form, self._task
        supers = task[Task.SUPERBLOCKS]
        first = self.at(task[Task.WEIGHTS], b.mul(tile, supers), form.tile_bytes)
        totals = self.zeros(self._count)
        group, place = (of(self._row, long(NEIGHBOURS)) for of in (b.udiv, b.urem))
        rows_at = self.at(task[Task.ROUNDED], b.mul(group, supers), NEIGHBOURS * ROUNDED_BYTES)
        rows_at = self.at(rows_at, place, ROUNDED_BYTES)
        with cgutils.for_range(b, supers) as loop:
            weights = self.at(first, loop.index, form.tile_bytes)
            rows = self.at(rows_at, loop.index, NEIGHBOURS * ROUNDED_BYTES)
            with cgutils.for_range(b, long(form.num_blocks)) as blocks:
                self._add_block(totals, weights, blocks.index, rows)
        for number, total in enumerate(totals):
            row = b.add(self._row, long(number))
            place = b.add(b.mul(row, task[Task.OUTPUTS]), b.mul(tile, long(LANES)))
            there = b.icmp_signed("<", row, task[Task.ROWS]) if number > self._least else cgutils.true_bit
            with b.if_then(there):
                self.store(b.load(total), self.at(task[Task.PRODUCTS], place, 4))

    def _add_block(self, totals: Sequence[Any], weights: Any, block: Any, rows: Any) -> None:
        """Add each row's products with a block of a superblock. rows: where the first row's superblock lies."""
        b, form = self.builder, self._form
        steps, starts = self.at(rows, block, form.block), self.at(rows, block, 4)
        groups = self.at(rows, b.udiv(block, long(GROUP // form.block)), 4)
        offsets = [ROUNDED_BYTES * number for number in range(self._count)]
        scales, minimums = self._scales(weights, block)
        if form.has_minimums:
            dots = [filled(WORDS, 0)] * self._count
        else:
            dots = [self.splat(starts, offset + STARTS_AT, WORDS) for offset in offsets]
        for quad, code in enumerate(self._codes(weights, block)):
            given = [b.bitcast(self.splat(steps, offset + 4 * quad, WORDS), BYTES) for offset in offsets]
            dots = [self._dot(dot, code, four) for dot, four in zip(dots, given, strict=True)]
        for dot, total, offset in zip(dots, totals, offsets, strict=True):
            factor = self.splat(groups, offset + FACTORS_AT, FLOATS)
            summed = self.fma(b.sitofp(dot, FLOATS), b.fmul(scales, factor), b.load(total))
            if form.has_minimums:
                summed = self.fma(minimums, self.splat(groups, offset + SUMS_AT, FLOATS), summed)
            b.store(summed, total)

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

    def _scales(self, weights: Any, block: Any) -> tuple[Any, Any]:
        """Return a block's scales, and its minimums with their sign turned; None where the form has none."""
        b, form = self.builder, self._form
        found = []
        for place in range(1 + form.has_minimums):
            factors = b.fpext(self.load(weights, form.factor_at + 2 * LANES * place, HALVES), FLOATS)
            at = form.minimums_at if place else form.scales_at
            # Signed bytes; minimums are below 64.
            words = b.sext(self.load(self.at(weights, block, LANES), at, LANE_BYTES), WORDS)
            found.append(b.fmul(b.sitofp(words, FLOATS), factors))
        return found[0], b.fneg(found[1]) if form.has_minimums else None

    def _shifted(self, vector: Any, bits: int) -> Any:
        """Shift bytes left, or right if negative; neighbours' bits come in, and must be masked."""
        if not bits:
            return vector
        shift = self.builder.shl if bits > 0 else self.builder.lshr
        pairs = shift(self.builder.bitcast(vector, PAIRS), filled(PAIRS, abs(bits)))
        return self.builder.bitcast(pairs, BYTES)
