"""The softmax of one query's scores for a block of keys, on vectors of 512 bits.

As loops, these are so short that LLVM unrolls them and computes number by number.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from shared.model.checkpoints.k_quants import LANES
from shared.model.devices.cpu.compiled_code.attention_product import KEY_BLOCK
from shared.model.devices.cpu.compiled_code.float_math import EXP2, HIGHEST, LOWEST
from shared.model.devices.cpu.compiled_code.vector_code import FLOATS, SHORTS, WORD, WORDS, VectorCode, filled

_PLACES = range(0, KEY_BLOCK, LANES)


@intrinsic
def largest(context: Any, scores: Any, num_keys: Any) -> Any:
    """Return the largest score of a block's first keys; what is no number may be dropped. scores: an address."""

    def emit(_its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        code = VectorCode(builder)
        lowest = filled(FLOATS, float("-inf"))
        parts = [code.load(arguments[0], 4 * place, FLOATS) for place in _PLACES]
        parts = [
            builder.select(there, part, lowest) for there, part in zip(_there(code, arguments[1]), parts, strict=True)
        ]
        return code.reduced(parts, code.larger)

    return types.float32(types.int64, types.int64), emit


@intrinsic
def weigh(context: Any, scores: Any, num_keys: Any, peak: Any, weights: Any) -> Any:
    """Write 2 to the power of each score less the peak, as bfloat16, 0 for a key beyond the first; return their sum.

    scores, weights: addresses of [KEY_BLOCK].
    """

    def emit(_its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        code = VectorCode(builder)
        highest = code.splat_value(arguments[2], FLOATS)
        parts = []
        for place, there in zip(_PLACES, _there(code, arguments[1]), strict=True):
            part = _exp2(code, builder.fsub(code.load(arguments[0], 4 * place, FLOATS), highest))
            words = code.to_bfloat16(builder.select(there, part, filled(FLOATS, 0.0)))
            code.store(builder.trunc(builder.lshr(words, filled(WORDS, 16)), SHORTS), arguments[3], 2 * place)
            parts.append(builder.bitcast(words, FLOATS))
        return code.reduced(parts, builder.fadd)

    return types.float32(types.int64, types.int64, types.float32, types.int64), emit


def _there(code: VectorCode, num_keys: Any) -> Sequence[Any]:
    """Return which lanes of each vector of a block belong to its first keys."""
    count = code.splat_value(code.builder.trunc(num_keys, WORD), WORDS)
    return [
        code.builder.icmp_signed("<", ir.Constant(WORDS, list(range(place, place + LANES))), count) for place in _PLACES
    ]


def _exp2(code: VectorCode, x: Any) -> Any:
    """Return 2 to the power of each lane, by the series of `exp2`."""
    b = code.builder
    for border, sign in ((LOWEST, "<"), (HIGHEST, ">")):
        beyond = b.fcmp_ordered(sign, x, filled(FLOATS, float(border)))
        x = b.select(beyond, filled(FLOATS, float(border)), x)
    whole = code.nearest(x)
    part, series = b.fsub(x, whole), filled(FLOATS, EXP2[0])
    for factor in (*EXP2[1:], 1.0):
        series = code.fma(series, part, filled(FLOATS, factor))
    power = b.shl(b.add(code.to_words(whole), filled(WORDS, 127)), filled(WORDS, 23))
    return b.fmul(series, b.bitcast(power, FLOATS))
