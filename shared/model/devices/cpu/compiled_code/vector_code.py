"""What the code on vectors of 512 bits is written with: loads, stores and calls of LLVM's instructions."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features

from shared.model.checkpoints.k_quants import LANES

BYTE, WORD, LONG, FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
BYTES, PAIRS, WORDS = ir.VectorType(BYTE, 64), ir.VectorType(ir.IntType(16), 32), ir.VectorType(WORD, LANES)
FLOATS, HALVES = ir.VectorType(FLOAT, LANES), ir.VectorType(ir.HalfType(), LANES)
LANE_BYTES, SHORTS = ir.VectorType(BYTE, LANES), ir.VectorType(ir.IntType(16), LANES)


class _BFloat16(ir.Type):  # type: ignore[misc]  # llvmlite is untyped
    """The type that is missing in llvmlite."""

    def _to_string(self) -> str:
        return "bfloat"


_PAIRS_OF_BFLOAT16 = ir.VectorType(_BFloat16(), 2 * LANES)


def features() -> set[str]:
    """Return what numba compiles for, by LLVM's names: not always all that the processor has."""
    limited = numba.config.CPU_FEATURES
    listed = get_host_cpu_features() if limited is None else limited
    return {name.removeprefix("+") for name in listed.split(",") if name.startswith("+")}


def has_avx2() -> bool:
    """Whether numba compiles for the least that this code is written for: LLVM ends the process where it does not."""
    if numba.config.CPU_FEATURES is None:
        return "avx2" in features()
    limits = numba.config.CPU_NAME or "", numba.config.CPU_FEATURES
    there = numba.config.ENABLE_AVX and binding.get_host_cpu_features().get("avx2")
    return bool(there) and limits[0] not in {"", "generic"} and "-avx2" not in limits[1]


WIDE = "avx512bw" in features()  # a vector is one register; else two


class VectorCode:
    """Writes code at the place of a builder. Addresses are whole numbers."""

    def __init__(self, builder: Any) -> None:
        """Write there."""
        self.builder = builder

    def fma(self, left: Any, right: Any, total: Any) -> Any:
        """Multiply and add, rounded once."""
        return self.call("llvm.fma.v16f32", FLOATS, left, right, total)

    def add_pairs(self, totals: Sequence[Any], left: Sequence[Any], right: Sequence[Any]) -> None:
        """Add to the place of each total the product of one of the left and one of the right: two bfloat16 a lane."""
        for place, (one, other) in zip(totals, product(left, right), strict=True):
            total = self.builder.load(place)
            if "avx512bf16" in features():
                pairs = [self.builder.bitcast(words, _PAIRS_OF_BFLOAT16) for words in (one, other)]
                total = self.call("llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, total, *pairs)
            else:
                total = self.fma(self._first(one), self._first(other), total)
                total = self.fma(self._second(one), self._second(other), total)
            self.builder.store(total, place)

    def _first(self, pairs: Any) -> Any:
        return self.builder.bitcast(self.builder.shl(pairs, filled(WORDS, 16)), FLOATS)

    def _second(self, pairs: Any) -> Any:
        return self.builder.bitcast(self.builder.and_(pairs, filled(WORDS, -0x10000)), FLOATS)

    def to_bfloat16(self, vector: Any) -> Any:
        """Round to bfloat16, half to even, with zeros behind its bits; a NaN stays one. Returns WORDS."""
        b, bits = self.builder, self.builder.bitcast(vector, WORDS)
        last = b.and_(b.lshr(bits, filled(WORDS, 16)), filled(WORDS, 1))
        rounded = b.add(bits, b.add(last, filled(WORDS, 0x7FFF)))
        of_nan = b.or_(bits, filled(WORDS, 0x400000))
        return b.and_(b.select(b.fcmp_unordered("uno", vector, vector), of_nan, rounded), filled(WORDS, -0x10000))

    def nearest(self, vector: Any) -> Any:
        """Return the nearest whole numbers, half to even, as floats."""
        return self.call("llvm.rint.v16f32", FLOATS, vector)

    def to_words(self, vector: Any) -> Any:
        """Return floats without a fraction as whole numbers; what is no number becomes 0."""
        return self.call("llvm.fptosi.sat.v16i32.v16f32", WORDS, vector)

    def reduced(self, vectors: Sequence[Any], combine: Callable[[Any, Any], Any]) -> Any:
        """Combine all lanes: those of one vector with those of the next, then one half with the other, and so on."""
        vector = reduce(combine, vectors)
        while vector.type.count > 1:
            vector = combine(self.half(vector, 0), self.half(vector, 1))
        return self.builder.extract_element(vector, ir.Constant(WORD, 0))

    def half(self, vector: Any, half: int) -> Any:
        """Return the first or the second half of the lanes."""
        size = vector.type.count // 2
        places = ir.Constant(ir.VectorType(WORD, size), list(range(half * size, (half + 1) * size)))
        return self.builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), places)

    def store(self, vector: Any, address: Any, offset: int = 0) -> None:
        """Store a vector."""
        self.builder.store(vector, self.pointer(address, offset, vector.type), align=1)

    def zeros(self, count: int) -> list[Any]:
        """Return places of vectors of zeros, that loops add to."""
        places = [cgutils.alloca_once(self.builder, FLOATS) for _ in range(count)]
        for place in places:
            self.builder.store(filled(FLOATS, 0.0), place)
        return places

    def splat(self, address: Any, offset: int, vector: Any) -> Any:
        """Load a number into all lanes."""
        return self.splat_value(self.load(address, offset, vector.element), vector)

    def splat_value(self, number: Any, vector: Any) -> Any:
        """Return a vector with this number in all lanes."""
        empty = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(empty, number, ir.Constant(WORD, 0))
        return self.builder.shuffle_vector(one, empty, filled(WORDS, 0))

    def load(self, address: Any, offset: int, kind: Any) -> Any:
        """Load what lies there, at any address."""
        return self.builder.load(self.pointer(address, offset, kind), align=1)

    def prefetch(self, address: Any, offset: int) -> None:
        """Ask for a line of memory, which may be anywhere, into the second cache."""
        kinds = [ir.PointerType(BYTE), WORD, WORD, WORD]
        function = ir.FunctionType(ir.VoidType(), kinds)
        prefetch = cgutils.get_or_insert_function(self.builder.module, function, "llvm.prefetch.p0")
        read, second_cache, data = (ir.Constant(WORD, number) for number in (0, 2, 1))
        self.builder.call(prefetch, [self.pointer(address, offset, BYTE), read, second_cache, data])

    def pointer(self, address: Any, offset: int, kind: Any) -> Any:
        """Return a pointer to an address, plus some bytes."""
        return self.builder.inttoptr(self.builder.add(address, long(offset)), ir.PointerType(kind))

    def at(self, address: Any, number: Any, size: int) -> Any:
        """Return the address of the element of this number, which has `size` bytes."""
        return self.builder.add(address, self.builder.mul(number, long(size)))

    def larger(self, left: Any, right: Any) -> Any:
        """Return the larger of two floats, the second if one is no number."""
        return self.builder.select(self.builder.fcmp_ordered(">", left, right), left, right)

    def larger_word(self, left: Any, right: Any) -> Any:
        """Return the larger of two signed whole numbers."""
        return self.builder.select(self.builder.icmp_signed(">", left, right), left, right)

    def smaller(self, left: Any, right: Any) -> Any:
        """Return the smaller of two whole numbers."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def call(self, name: str, returned: Any, *arguments: Any) -> Any:
        """Call one of LLVM's instructions."""
        function = ir.FunctionType(returned, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), arguments)


def long(number: int) -> Any:
    """Return a whole number of 64 bits."""
    return ir.Constant(LONG, int(number))


def filled(vector: Any, number: float) -> Any:
    """Return a vector with this number in all lanes."""
    return ir.Constant(vector, [number] * vector.count)
