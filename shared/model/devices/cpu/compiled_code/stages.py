"""What the stages of a forward pass compute, an item at a time.

A row of activations is computed from that row alone, in one order: loops have fixed lengths, LLVM may not
contract a product and a sum, and only sums of a fixed length may be taken in another order, the same for each row.
"""

import numba
import numpy as np
from numba import carray
from numpy.typing import NDArray

from shared.model.devices.cpu.compiled_code.attention_product import (
    KEY_BLOCK,
    ask,
    key_products,
    largest,
    value_products,
)
from shared.model.devices.cpu.compiled_code.shared_memory import (
    bytes_at,
    floats_at,
    longs_at,
    number,
    power_of_two,
    words_at,
)
from shared.model.devices.cpu.compiled_code.stage_numbers import KIND, Attend, Gate, Kind, Norm, Rotate
from shared.model.devices.cpu.compiled_code.tile_product import (
    FACTORS_AT,
    GROUP,
    MOST_ROWS,
    NEIGHBOURS,
    ROUNDED_BYTES,
    STARTS_AT,
    SUMS_AT,
    Task,
    q4_k_tile,
    q5_k_tile,
    q6_k_tile,
)
from shared.model.devices.cpu.kernels.int8_linear import LEAST

_Floats = NDArray[np.float32]

# As numba knows them.
_NORM, _ROTATE, _ATTEND, _ROUND, _GATE, _Q4_K, _Q5_K, _Q6_K = (int(kind) for kind in Kind)
_ROUNDED = int(Task.ROUNDED)
_TILES, _CHUNK, _ROWS = int(Task.TILES), int(Task.CHUNK), int(Task.ROWS)
_N_SIZE, _N_ROWS, _N_PRODUCTS, _N_BIAS, _N_WEIGHT, _N_EPS, _N_NORMAL = (int(place) for place in Norm)
_G_SIZE, _G_PRODUCTS, _G_BIAS = (int(place) for place in Gate)
_HEADS, _KV_HEADS, _HEAD_DIM, _MAX_LENGTH, _KEYS, _VALUES, _QUERIES, _PLACES = (int(at) for at in list(Rotate)[:8])
_R_PRODUCTS, _R_BIAS, _R_NORMS, _R_CONSTANTS, _R_COS, _R_SIN = (int(at) for at in list(Rotate)[8:])
_A_GROUPS, _A_SCORES, _A_PEAKS, _A_SUMS = (int(place) for place in Attend)

_TOP = np.float32(127)
_LEAST = np.float32(LEAST)
_MAGNITUDE = np.int32(0x7FFFFFFF)  # a float's bits but its sign's: in the order of magnitudes, a NaN above all
_ONE, _ZERO = np.float32(1), np.float32(0)
_LOG2_E = np.float32(np.log2(np.e))
_LOWEST, _HIGHEST = np.float32(-126), np.float32(126)
# Of 2 ** x from -1/2 to 1/2, by the Cephes library.
_P0, _P1, _P2, _P3, _P4, _P5 = (
    np.float32(of)
    for of in (1.535336188319500e-4, 1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2,
               2.402264791363012e-1, 6.931472028550421e-1)
)  # fmt: skip

_AHEAD = 2  # blocks of keys that are asked for before they are needed

_compile = numba.njit(error_model="numpy")
_compile_sum = numba.njit(error_model="numpy", fastmath={"reassoc", "nsz"})


@_compile
def compute(stage: int, item: int) -> None:  # noqa: C901 - one branch a kind
    """Compute an item of the stage at this address."""
    kind = number(stage, KIND)
    if kind >= _Q4_K:
        chunk, num_rows = number(stage, _CHUNK), number(stage, _ROWS)
        for tile in range(item * chunk, min((item + 1) * chunk, number(stage, _TILES))):
            for row in range(0, num_rows, MOST_ROWS):
                if kind == _Q4_K:
                    q4_k_tile(stage, tile, row)
                elif kind == _Q5_K:
                    q5_k_tile(stage, tile, row)
                else:
                    q6_k_tile(stage, tile, row)
    elif kind == _NORM:
        _norm(stage, item)
    elif kind == _ROTATE:
        _rotate(stage, item)
    elif kind == _ATTEND:
        _attend(stage, item)
    elif kind == _ROUND:
        size = number(stage, _N_SIZE)
        _round_row(stage, item, number(stage, _N_ROWS) + 4 * item * size, size)
    elif kind == _GATE:
        _gate(stage, item)


@_compile
def _norm(stage: int, row: int) -> None:
    size = number(stage, _N_SIZE)
    at = 4 * row * size
    numbers = carray(floats_at(number(stage, _N_ROWS) + at), size)
    if number(stage, _N_PRODUCTS):
        products = carray(floats_at(number(stage, _N_PRODUCTS) + at), size)
        bias = carray(floats_at(number(stage, _N_BIAS)), size)
        for j in range(size):
            numbers[j] += products[j] + bias[j]
    if number(stage, _N_WEIGHT):
        weight, eps = carray(floats_at(number(stage, _N_WEIGHT)), size), carray(floats_at(number(stage, _N_EPS)), 1)[0]
        normal = carray(floats_at(number(stage, _N_NORMAL) + at), size)
        inverse = _ONE / np.sqrt(_squares(numbers) / np.float32(size) + eps)
        for j in range(size):
            normal[j] = numbers[j] * inverse * weight[j]
        _round_row(stage, row, number(stage, _N_NORMAL) + at, size)


@_compile
def _round_row(stage: int, row: int, values: int, size: int) -> None:
    for superblock in range(size // 256):
        _round(stage, row, superblock, size // 256, values + 1024 * superblock)


@_compile
def _round(stage: int, row: int, superblock: int, superblocks: int, values: int) -> None:
    """Round 256 numbers so that the largest of each GROUP is 127, half to even."""
    place = (row // NEIGHBOURS * superblocks + superblock) * NEIGHBOURS + row % NEIGHBOURS
    rounded = number(stage, _ROUNDED) + ROUNDED_BYTES * place
    starts = carray(words_at(rounded + STARTS_AT), 16)
    for group in range(256 // GROUP):
        bits = carray(words_at(values + 4 * GROUP * group), GROUP)
        numbers = carray(floats_at(values + 4 * GROUP * group), GROUP)
        steps = carray(bytes_at(rounded + GROUP * group), GROUP)
        most = np.int32(0)
        for j in range(GROUP):
            most = max(most, bits[j] & _MAGNITUDE)
        factor = carray(floats_at(rounded + FACTORS_AT + 4 * group), 1)
        carray(words_at(rounded + FACTORS_AT + 4 * group), 1)[0] = most
        largest = factor[0]
        if largest < _LEAST:
            largest = _LEAST
        scale = _TOP / largest
        factor[0] = largest / _TOP
        for j in range(GROUP):
            steps[j] = np.int8(np.int32(np.rint(numbers[j] * scale)))
        whole = np.int32(0)
        for half in range(GROUP // 16):
            total = np.int32(0)
            for j in range(16):
                total += np.int32(steps[16 * half + j])
            starts[GROUP // 16 * group + half] = -32 * total
            whole += total
        carray(floats_at(rounded + SUMS_AT + 4 * group), 1)[0] = np.float32(whole) * factor[0]


@_compile
def _gate(stage: int, item: int) -> None:
    size = number(stage, _G_SIZE)
    row, superblock = item // (size // 256), item % (size // 256)
    at = number(stage, _G_PRODUCTS) + 8 * row * size + 1024 * superblock
    gate, up = carray(floats_at(at), 256), carray(floats_at(at + 4 * size), 256)
    first = number(stage, _G_BIAS) + 1024 * superblock
    gate_bias, up_bias = carray(floats_at(first), 256), carray(floats_at(first + 4 * size), 256)
    for j in range(256):
        x = gate[j] + gate_bias[j]
        gate[j] = x / (_ONE + _exp2(-x * _LOG2_E)) * (up[j] + up_bias[j])
    _round(stage, row, superblock, size // 256, at)


@_compile
def _rotate(stage: int, row: int) -> None:
    heads, kv_heads, head_dim = number(stage, _HEADS), number(stage, _KV_HEADS), number(stage, _HEAD_DIM)
    half, max_length = head_dim // 2, number(stage, _MAX_LENGTH)
    places = carray(longs_at(number(stage, _PLACES) + 16 * row), 2)
    constants = carray(floats_at(number(stage, _R_CONSTANTS)), 2)
    cos = carray(floats_at(number(stage, _R_COS) + 4 * row * head_dim), head_dim)
    sin = carray(floats_at(number(stage, _R_SIN) + 4 * row * head_dim), head_dim)
    for place in range(heads + 2 * kv_heads):
        at = row * (heads + 2 * kv_heads) + place
        head = carray(floats_at(number(stage, _R_PRODUCTS) + 4 * at * head_dim), head_dim)
        bias = carray(floats_at(number(stage, _R_BIAS) + 4 * place * head_dim), head_dim)
        for j in range(head_dim):
            head[j] += bias[j]
        kept = place - heads if place < heads + kv_heads else place - heads - kv_heads
        at = (places[0] * kv_heads + kept) * max_length + places[1]
        if place >= heads + kv_heads:
            value = carray(floats_at(number(stage, _VALUES) + 4 * at * head_dim), head_dim)
            for j in range(head_dim):
                value[j] = head[j]
            continue
        if number(stage, _R_NORMS):
            norm = number(stage, _R_NORMS) + (0 if place < heads else 4 * head_dim)
            weight = carray(floats_at(norm), head_dim)
            inverse = _ONE / np.sqrt(_squares(head) / np.float32(head_dim) + constants[0])
            for j in range(head_dim):
                head[j] *= inverse * weight[j]
        scale, written = _ONE, number(stage, _KEYS) + 4 * at * head_dim
        if place < heads:
            scale, written = constants[1], number(stage, _QUERIES) + 4 * (row * heads + place) * head_dim
        rotated = carray(floats_at(written), head_dim)
        for j in range(half):
            rotated[j] = (head[j] * cos[j] - head[half + j] * sin[j]) * scale
        for j in range(half, head_dim):
            rotated[j] = (head[j] * cos[j] + head[j - half] * sin[j]) * scale


@_compile
def _attend(stage: int, item: int) -> None:
    """Attend to a block of keys after another, with what came before scaled to the largest score so far."""
    heads, kv_heads, head_dim = number(stage, _HEADS), number(stage, _KV_HEADS), number(stage, _HEAD_DIM)
    group, kv_head = heads // kv_heads, item % kv_heads
    rows = carray(longs_at(number(stage, _A_GROUPS) + 16 * (item // kv_heads)), 2)
    places = carray(longs_at(number(stage, _PLACES) + 16 * rows[0]), 2 * rows[1])
    cached = 4 * head_dim * number(stage, _MAX_LENGTH) * (places[0] * kv_heads + kv_head)
    for first in range(0, places[2 * rows[1] - 1] + 1, KEY_BLOCK):
        block, size = cached + 4 * head_dim * first, 4 * head_dim * KEY_BLOCK
        ask(number(stage, _KEYS) + block + _AHEAD * size, size)
        ask(number(stage, _VALUES) + block + _AHEAD * size, size)
        for i in range(rows[1]):
            num_keys = min(places[2 * i + 1] + 1 - first, KEY_BLOCK)
            if num_keys <= 0:
                continue
            head = (rows[0] + i) * heads + kv_head * group
            scores, sums = number(stage, _A_SCORES) + 4 * KEY_BLOCK * head, number(stage, _A_SUMS) + 4 * head_dim * head
            queries = number(stage, _QUERIES) + 4 * head_dim * head
            key_products(queries, number(stage, _KEYS) + block, scores, group, head_dim)
            for query in range(group):
                peaks = number(stage, _A_PEAKS) + 8 * (head + query)
                _weigh(first, num_keys, scores + 4 * KEY_BLOCK * query, peaks, sums + 4 * head_dim * query, head_dim)
            value_products(scores, number(stage, _VALUES) + block, sums, group, head_dim, num_keys)
    for i in range(rows[1]):
        for query in range(group):
            head = (rows[0] + i) * heads + kv_head * group + query
            total = carray(floats_at(number(stage, _A_PEAKS) + 8 * head), 2)[1]
            sums_of = carray(floats_at(number(stage, _A_SUMS) + 4 * head_dim * head), head_dim)
            for j in range(head_dim):
                sums_of[j] /= total


@_compile
def _weigh(first: int, num_keys: int, scores: int, peaks: int, sums: int, head_dim: int) -> None:
    """Make weights of a query's scores, and scale what was summed up before them."""
    weights, kept, summed = (
        carray(floats_at(scores), 32),
        carray(floats_at(peaks), 2),
        carray(floats_at(sums), head_dim),
    )
    if not first:
        kept[0], kept[1] = -np.float32(np.inf), _ZERO
        for j in range(head_dim):
            summed[j] = _ZERO
    for j in range(num_keys, 32):
        weights[j] = -np.float32(np.inf)
    peak = max(kept[0], largest(scores))
    if first and peak > kept[0]:
        scale = _exp2(kept[0] - peak)
        kept[1] *= scale
        for j in range(head_dim):
            summed[j] *= scale
    kept[0] = peak
    for j in range(32):
        weights[j] = _exp2(weights[j] - peak)
    for j in range(num_keys, 32):
        weights[j] = _ZERO
    kept[1] += _total(weights)


@_compile
def _exp2(x: np.float32) -> np.float32:
    """Return 2 to the power of x, to a few units in the last place; x is taken to lie between -126 and 126."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    whole = np.rint(x)
    part = x - whole
    series = ((((_P0 * part + _P1) * part + _P2) * part + _P3) * part + _P4) * part + _P5
    return (series * part + _ONE) * power_of_two(np.int32(whole))


@_compile_sum
def _squares(row: _Floats) -> np.float32:
    """Return the sum of the squares. row: [n]."""
    total = _ZERO
    for j in range(len(row)):
        total += row[j] * row[j]
    return total


@_compile_sum
def _total(row: _Floats) -> np.float32:
    """Return the sum of 32 numbers."""
    total = _ZERO
    for j in range(32):
        total += row[j]
    return total
