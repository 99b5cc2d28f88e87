"""The products of attention for the queries of one row that share their keys, on vectors of 512 bits.

Keys are taken KEY_BLOCK at a time. Each query takes the same steps in the same order, whatever runs beside it.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shared.model.checkpoints.k_quants import HEAD_GRAIN, LANES
from shared.model.devices.cpu.compiled_code.vector_code import FLOATS, WORD, VectorCode, long

KEY_BLOCK = 32
# What is computed at once: as many sums as hide the time that one takes. Parts are vectors of a head.
_QUERIES, _KEYS, _PARTS = 2, 4, 4


@intrinsic
def key_products(context: Any, queries: Any, keys: Any, scores: Any, group: Any, head_dim: Any) -> Any:
    """Multiply a block of keys with each query. Addresses of float32.

    queries: [group, head_dim]; keys: [KEY_BLOCK, head_dim]; scores: [group, KEY_BLOCK], written.
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
    """Add the values of a block's first keys to each query's sums, by their weights. Addresses of float32.

    weights: [group, KEY_BLOCK]; values: [num_keys, head_dim]; sums: [group, head_dim], written.
    """
    return types.void(*[types.int64] * 6), _emit_values


def _emit_keys(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
    queries, keys, scores, group, head_dim = arguments
    code, b = VectorCode(builder), builder
    size = b.mul(head_dim, long(4))
    with cgutils.for_range_slice(b, long(0), group, long(_QUERIES), inc=True) as (first, _count):
        chosen = _chosen(code, first, group)
        rows = [b.add(queries, b.mul(query, size)) for query in chosen]
        with cgutils.for_range_slice(b, long(0), long(KEY_BLOCK), long(_KEYS), inc=True) as (key, _count):
            columns = [b.add(keys, b.mul(b.add(key, long(place)), size)) for place in range(_KEYS)]
            sums = code.zeros(_QUERIES * _KEYS)
            with cgutils.for_range_slice(b, long(0), size, long(4 * LANES), inc=True) as (offset, _count):
                left = [code.load(b.add(row, offset), 0, FLOATS) for row in rows]
                right = [code.load(b.add(column, offset), 0, FLOATS) for column in columns]
                pairs = [(query, of_key) for query in left for of_key in right]
                for total, (query, of_key) in zip(sums, pairs, strict=True):
                    b.store(code.fma(query, of_key, b.load(total)), total)
            found = _sums(code, [b.load(total) for total in sums])  # [_QUERIES * _KEYS]
            for number, query in enumerate(chosen):
                places = ir.Constant(ir.VectorType(WORD, _KEYS), list(range(number * _KEYS, (number + 1) * _KEYS)))
                of_query = b.shuffle_vector(found, ir.Constant(found.type, ir.Undefined), places)
                code.store(of_query, code.at(scores, b.add(b.mul(query, long(KEY_BLOCK)), key), 4))
    return context.get_dummy_value()


def _emit_values(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
    code, b = VectorCode(builder), builder
    least = HEAD_GRAIN // LANES
    even = b.icmp_signed("==", b.urem(arguments[4], long(LANES * _PARTS)), long(0))
    with b.if_else(even) as (most_parts, least_parts):
        with most_parts:
            _emit_parts(code, arguments, _PARTS)
        with least_parts:
            _emit_parts(code, arguments, least)
    return context.get_dummy_value()


def _emit_parts(code: VectorCode, arguments: Any, num_parts: int) -> None:
    """Add up so many vectors of a head at once."""
    weights, values, sums, group, head_dim, num_keys = arguments
    b = code.builder
    size = b.mul(head_dim, long(4))
    with cgutils.for_range_slice(b, long(0), group, long(_QUERIES), inc=True) as (first, _count):
        chosen = _chosen(code, first, group)
        of_queries = [code.at(weights, query, 4 * KEY_BLOCK) for query in chosen]
        with cgutils.for_range_slice(b, long(0), size, long(4 * LANES * num_parts), inc=True) as (offset, _count):
            written = [b.add(sums, b.add(b.mul(query, size), offset)) for query in chosen]
            totals = code.zeros(_QUERIES * num_parts)
            for number, total in enumerate(totals):
                query, part = divmod(number, num_parts)
                b.store(code.load(written[query], 4 * LANES * part, FLOATS), total)
            with cgutils.for_range(b, num_keys) as loop:
                row = b.add(values, b.add(b.mul(loop.index, size), offset))
                parts = [code.load(row, 4 * LANES * part, FLOATS) for part in range(num_parts)]
                each = [code.splat(code.at(of_query, loop.index, 4), 0, FLOATS) for of_query in of_queries]
                pairs = [(weight, part) for weight in each for part in parts]
                for total, (weight, part) in zip(totals, pairs, strict=True):
                    b.store(code.fma(weight, part, b.load(total)), total)
            for number, total in enumerate(totals):
                query, part = divmod(number, num_parts)
                code.store(b.load(total), written[query], 4 * LANES * part)


def _chosen(code: VectorCode, first: Any, group: Any) -> list[Any]:
    """Return the queries that are computed at once; the last one again where there are no more."""
    last = code.builder.sub(group, long(1))
    return [code.smaller(code.builder.add(first, long(place)), last) for place in range(_QUERIES)]


def _sums(code: VectorCode, vectors: Sequence[Any]) -> Any:
    """Return the sum of each vector's lanes: of one half and the other, and so on, for all vectors at once."""
    width = LANES
    while width > 1:
        width //= 2
        if len(vectors) > 1:
            vectors = [_halved(code, *vectors[place : place + 2], width) for place in range(0, len(vectors), 2)]
        else:
            vectors = [_halved(code, vectors[0], None, width)]
    return vectors[0]


def _halved(code: VectorCode, left: Any, right: Any, width: int) -> Any:
    """Add the two halves of each run of 2 * width lanes, and return the sums of both vectors one after the other."""
    size = left.type.count * (1 if right is None else 2)
    runs = range(0, size, 2 * width)
    right = ir.Constant(left.type, ir.Undefined) if right is None else right
    halves = []
    for half in (0, width):
        places = [start + half + lane for start in runs for lane in range(width)]
        halves.append(code.builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(WORD, len(places)), places)))
    return code.builder.fadd(*halves)


@intrinsic
def ask(context: Any, address: Any, size: Any) -> Any:
    """Ask for what will be needed soon, which may lie anywhere. size: in bytes."""

    def emit(its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        with cgutils.for_range_slice(builder, long(0), arguments[1], long(64), inc=True) as (offset, _count):
            VectorCode(builder).prefetch(builder.add(arguments[0], offset), 0)
        return its.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def largest(context: Any, scores: Any) -> Any:
    """Return the largest of KEY_BLOCK scores at an address; what is no number may be dropped."""

    def emit(_its: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        code = VectorCode(builder)
        left, right = (code.load(arguments[0], 4 * LANES * place, FLOATS) for place in (0, 1))
        while True:
            left = builder.select(builder.fcmp_ordered(">", left, right), left, right)
            if left.type.count == 1:
                return builder.extract_element(left, ir.Constant(WORD, 0))
            left, right = code.half(left, 0), code.half(left, 1)

    return types.float32(types.int64), emit
