"""The products of attention for the queries of one row that share their keys, on vectors of 512 bits.

Keys are taken KEY_BLOCK at a time. Each query takes the same steps in the same order, whatever runs beside it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shared.model.checkpoints.k_quants import HEAD_GRAIN, LANES
from shared.model.devices.cpu.compiled_code.vector_code import FLOATS, WORDS, VectorCode, filled, long

KEY_BLOCK = 32
_KEY_PARTS, _VALUE_PARTS = KEY_BLOCK // LANES, HEAD_GRAIN // LANES  # vectors that are computed at once, for
_MOST_QUERIES = 4  # so many queries at most
_PAIRS = 4  # of a head's numbers, that are multiplied before the loop goes on
_FIRST_OF_PAIR = filled(WORDS, 0xFFFF)


@intrinsic
def key_products(context: Any, queries: Any, keys: Any, scores: Any, group: Any, head_dim: Any) -> Any:
    """Multiply a block of keys with each query. Addresses of bfloat16, and of float32 scores.

    queries: [group, head_dim]; keys: [head_dim / 2, KEY_BLOCK, 2]; scores: [group, KEY_BLOCK], written.
    """
    return types.void(*[types.int64] * 5), _emit_keys


@intrinsic
def value_products(
    context: Any,
    weights: Any,
    values: Any,
    sums: Any,
    group: Any,
    head_dim: Any,
    num_keys: Any,
) -> Any:
    """Add the values of a block's first keys to each query's float32 sums, by their weights. Addresses of bfloat16.

    weights: [group, KEY_BLOCK]; values: [KEY_BLOCK / 2, head_dim, 2]; sums: [group, head_dim], written.
    """
    return types.void(*[types.int64] * 6), _emit_values


def _emit_keys(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
    queries, keys, scores, group, head_dim = arguments
    code, b = VectorCode(builder), builder

    def emit(chosen: Sequence[Any]) -> None:
        rows = [b.add(queries, b.mul(query, b.mul(head_dim, long(2)))) for query in chosen]
        sums = code.zeros(len(rows) * _KEY_PARTS)
        half = b.udiv(head_dim, long(2))
        with cgutils.for_range_slice(b, long(0), half, long(_PAIRS), inc=True) as (first, _count):
            for pair in (b.add(first, long(place)) for place in range(_PAIRS)):
                column = code.at(keys, pair, 4 * KEY_BLOCK)
                parts = [code.load(column, 4 * LANES * part, WORDS) for part in range(_KEY_PARTS)]
                code.add_pairs(sums, [code.splat(code.at(row, pair, 4), 0, WORDS) for row in rows], parts)
        for number, total in enumerate(sums):
            query, part = divmod(number, _KEY_PARTS)
            code.store(b.load(total), code.at(scores, chosen[query], 4 * KEY_BLOCK), 4 * LANES * part)

    _emit_steps(code, group, emit)
    return context.get_dummy_value()


def _emit_values(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
    weights, values, sums, group, head_dim, num_keys = arguments
    code, b = VectorCode(builder), builder
    size, num_pairs = b.mul(head_dim, long(4)), b.udiv(num_keys, long(2))  # of a row of sums, and of a pair of values

    def emit(chosen: Sequence[Any]) -> None:
        of_queries = [code.at(weights, query, 2 * KEY_BLOCK) for query in chosen]
        with cgutils.for_range_slice(b, long(0), size, long(4 * LANES * _VALUE_PARTS), inc=True) as (offset, _count):
            written = [b.add(sums, b.add(b.mul(query, size), offset)) for query in chosen]
            totals = code.zeros(len(chosen) * _VALUE_PARTS)
            for number, total in enumerate(totals):
                query, part = divmod(number, _VALUE_PARTS)
                b.store(code.load(written[query], 4 * LANES * part, FLOATS), total)

            def add(pair: Any, mask: Any = None) -> None:
                row = b.add(values, b.add(b.mul(pair, size), offset))
                parts = [code.load(row, 4 * LANES * part, WORDS) for part in range(_VALUE_PARTS)]
                parts = [b.and_(part, mask) if mask else part for part in parts]
                code.add_pairs(totals, [code.splat(code.at(query, pair, 4), 0, WORDS) for query in of_queries], parts)

            with cgutils.for_range(b, num_pairs) as loop:
                add(loop.index)
            with b.if_then(b.trunc(num_keys, ir.IntType(1))):  # what lies beside the last key may be no number
                add(num_pairs, _FIRST_OF_PAIR)
            for number, total in enumerate(totals):
                query, part = divmod(number, _VALUE_PARTS)
                code.store(b.load(total), written[query], 4 * LANES * part)

    _emit_steps(code, group, emit)
    return context.get_dummy_value()


def _emit_steps(code: VectorCode, group: Any, emit: Callable[[Sequence[Any]], None]) -> None:
    """Write the code for as many queries at once as make the steps even; the last one again where there are no more."""
    b, most = code.builder, long(_MOST_QUERIES)

    def ratio(left: Any, right: Any) -> Any:
        return b.udiv(b.add(left, b.sub(right, long(1))), right)

    together, last = ratio(group, ratio(group, most)), b.sub(group, long(1))
    for count in range(1, _MOST_QUERIES + 1):
        steps = cgutils.for_range_slice(b, long(0), group, long(count), inc=True)
        with b.if_then(b.icmp_signed("==", together, long(count))), steps as (first, _count):
            emit([code.smaller(b.add(first, long(place)), last) for place in range(count)])


@intrinsic
def ask(context: Any, address: Any, size: Any) -> Any:
    """Ask for what will be needed soon, which may lie anywhere. size: in bytes."""

    def emit(its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        with cgutils.for_range_slice(builder, long(0), arguments[1], long(64), inc=True) as (offset, _count):
            VectorCode(builder).prefetch(builder.add(arguments[0], offset), 0)
        return its.get_dummy_value()

    return types.void(types.int64, types.int64), emit
