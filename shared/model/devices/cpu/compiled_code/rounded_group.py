"""Rounds a GROUP of activations to whole numbers of 8 bits, on vectors of 512 bits: see `softmax_block.py`."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from shared.model.checkpoints.k_quants import LANES
from shared.model.devices.cpu.compiled_code.tile_product import FACTORS_AT, GROUP, STARTS_AT, SUMS_AT
from shared.model.devices.cpu.compiled_code.vector_code import (
    FLOAT,
    FLOATS,
    LANE_BYTES,
    WORD,
    WORDS,
    VectorCode,
    filled,
)
from shared.model.devices.cpu.kernels.int8_linear import LEAST

_TOP = ir.Constant(FLOAT, 127.0)


@intrinsic
def round_group(context: Any, values: Any, rounded: Any, group: Any) -> Any:
    """Round so that the largest magnitude is 127, half to even; one that is no number makes all of them so.

    values: the address of [GROUP] float32; rounded: of a superblock of ROUNDED_BYTES, of whose groups this is one.
    """

    def emit(its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        values, rounded, group = arguments
        code, b = VectorCode(builder), builder
        parts = [code.load(values, 4 * place, FLOATS) for place in range(0, GROUP, LANES)]
        # A float's bits but its sign's are in the order of magnitudes, a NaN above all.
        bits = [b.and_(b.bitcast(part, WORDS), filled(WORDS, 0x7FFFFFFF)) for part in parts]
        magnitude = b.bitcast(code.reduced(bits, code.larger_word), FLOAT)
        least = ir.Constant(FLOAT, float(LEAST))
        magnitude = b.select(b.fcmp_ordered("<", magnitude, least), least, magnitude)
        factor, scale = b.fdiv(magnitude, _TOP), code.splat_value(b.fdiv(_TOP, magnitude), FLOATS)
        whole = ir.Constant(WORD, 0)
        steps_at, starts_at = code.at(rounded, group, GROUP), code.at(rounded, group, 4 * len(parts))
        for number, part in enumerate(parts):
            steps = code.to_words(code.nearest(b.fmul(part, scale)))
            code.store(b.trunc(steps, LANE_BYTES), steps_at, LANES * number)
            total = code.reduced([steps], b.add)
            code.store(b.mul(total, ir.Constant(WORD, -32)), starts_at, STARTS_AT + 4 * number)
            whole = b.add(whole, total)
        groups_at = code.at(rounded, group, 4)
        code.store(factor, groups_at, FACTORS_AT)
        code.store(b.fmul(b.sitofp(whole, FLOAT), factor), groups_at, SUMS_AT)
        return its.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit
