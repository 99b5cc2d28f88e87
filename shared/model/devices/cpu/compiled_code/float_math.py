"""Functions of float32 numbers that stages share."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from shared.model.devices.cpu.compiled_code.vector_code import FLOAT, WORD

_Floats = NDArray[np.float32]

ONE, ZERO = np.float32(1), np.float32(0)
LOG2_E = np.float32(np.log2(np.e))
MAGNITUDE = np.int32(0x7FFFFFFF)  # a float's bits but its sign's: in the order of magnitudes, a NaN above all
LOWEST, HIGHEST = np.float32(-126), np.float32(126)
EXP2 = (
    1.535336188319500e-4,
    1.339887440266574e-3,
    9.618437357674640e-3,
    5.550332471162809e-2,
    2.402264791363012e-1,
    6.931472028550421e-1,
)  # of 2 ** x from -1/2 to 1/2, by the Cephes library
_P0, _P1, _P2, _P3, _P4, _P5 = (np.float32(factor) for factor in EXP2)
_INFINITE = np.int32(0x7F800000)
_QUIET = np.int32(0x400000)
_UPPER = np.int32(-0x10000)
_HALF = np.int32(0x7FFF)

compiled = numba.njit(error_model="numpy")
compiled_sum = numba.njit(error_model="numpy", fastmath={"reassoc", "nsz"})  # in another order, the same for each row


@intrinsic
def power_of_two(context: Any, exponent: Any) -> Any:
    """Return 2 to a whole number from -126 to 127, as float32."""

    def emit(_its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits = builder.shl(builder.add(arguments[0], ir.Constant(WORD, 127)), ir.Constant(WORD, 23))
        return builder.bitcast(bits, FLOAT)

    return types.float32(types.int32), emit


@compiled
def exp2(x: np.float32) -> np.float32:
    """Return 2 to the power of x, to a few units in the last place; x is taken to lie between -126 and 126."""
    x = LOWEST if x < LOWEST else x
    x = HIGHEST if x > HIGHEST else x
    whole = np.rint(x)
    part = x - whole
    series = ((((_P0 * part + _P1) * part + _P2) * part + _P3) * part + _P4) * part + _P5
    return (series * part + ONE) * power_of_two(np.int32(whole))


@compiled
def to_bfloat16(bits: np.int32) -> np.int32:
    """Return the bits of a float32 rounded to bfloat16, half to even, with zeros behind them; a NaN stays one."""
    rounded = bits + _HALF + ((bits >> np.int32(16)) & np.int32(1))
    return ((bits | _QUIET) if (bits & MAGNITUDE) > _INFINITE else rounded) & _UPPER


@compiled_sum
def squares(row: _Floats) -> np.float32:
    """Return the sum of the squares, in an order that depends on the processor and the length alone. row: [n]."""
    total = ZERO
    for j in range(len(row)):
        total += row[j] * row[j]
    return total
