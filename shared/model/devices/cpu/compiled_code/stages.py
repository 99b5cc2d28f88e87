"""What the stages of a forward pass compute, an item at a time.

A row of activations is computed from that row alone, in one order: loops have fixed lengths, LLVM may not
contract a product and a sum, and only sums of a fixed length may be taken in another order, the same for each row.
"""

import numpy as np
from numba import carray

from shared.model.checkpoints.k_quants import SUPERBLOCK
from shared.model.devices.cpu.compiled_code.attention_stages import attend, rotate
from shared.model.devices.cpu.compiled_code.float_math import LOG2_E, ONE, compiled, exp2, squares
from shared.model.devices.cpu.compiled_code.rounded_group import round_group
from shared.model.devices.cpu.compiled_code.shared_memory import floats_at, number
from shared.model.devices.cpu.compiled_code.stage_numbers import KIND, Gate, Kind, Norm
from shared.model.devices.cpu.compiled_code.tile_product import (
    GROUP,
    MOST_ROWS,
    NEIGHBOURS,
    ROUNDED_BYTES,
    Task,
    q4_k_tile,
    q5_k_tile,
    q6_k_tile,
)

# As numba knows them.
_NORM, _ROTATE, _ATTEND, _ROUND, _GATE, _Q4_K, _Q5_K, _Q6_K = (int(kind) for kind in Kind)
_ROUNDED = int(Task.ROUNDED)
_TILES, _CHUNK, _ROWS = int(Task.TILES), int(Task.CHUNK), int(Task.ROWS)
_N_SIZE, _N_ROWS, _N_PRODUCTS, _N_BIAS, _N_WEIGHT, _N_EPS, _N_NORMAL = (int(place) for place in Norm)
_G_SIZE, _G_PRODUCTS, _G_BIAS = (int(place) for place in Gate)


@compiled
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
        rotate(stage, item)
    elif kind == _ATTEND:
        attend(stage, item)
    elif kind == _ROUND:
        size = number(stage, _N_SIZE)
        _round_row(stage, item, number(stage, _N_ROWS) + 4 * item * size, size)
    elif kind == _GATE:
        _gate(stage, item)


@compiled
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
        inverse = ONE / np.sqrt(squares(numbers) / np.float32(size) + eps)
        for j in range(size):
            normal[j] = numbers[j] * inverse * weight[j]
        _round_row(stage, row, number(stage, _N_NORMAL) + at, size)


@compiled
def _round_row(stage: int, row: int, values: int, size: int) -> None:
    for superblock in range(size // SUPERBLOCK):
        _round(stage, row, superblock, size // SUPERBLOCK, values + 4 * SUPERBLOCK * superblock)


@compiled
def _round(stage: int, row: int, superblock: int, superblocks: int, values: int) -> None:
    """Round the numbers of a superblock, each GROUP for itself."""
    place = (row // NEIGHBOURS * superblocks + superblock) * NEIGHBOURS + row % NEIGHBOURS
    for group in range(SUPERBLOCK // GROUP):
        round_group(values + 4 * GROUP * group, number(stage, _ROUNDED) + ROUNDED_BYTES * place, group)


@compiled
def _gate(stage: int, item: int) -> None:
    size = number(stage, _G_SIZE)
    row, superblock = item // (size // SUPERBLOCK), item % (size // SUPERBLOCK)
    at = number(stage, _G_PRODUCTS) + 8 * row * size + 4 * SUPERBLOCK * superblock
    gate, up = carray(floats_at(at), SUPERBLOCK), carray(floats_at(at + 4 * size), SUPERBLOCK)
    first = number(stage, _G_BIAS) + 4 * SUPERBLOCK * superblock
    gate_bias, up_bias = carray(floats_at(first), SUPERBLOCK), carray(floats_at(first + 4 * size), SUPERBLOCK)
    for j in range(SUPERBLOCK):
        x = gate[j] + gate_bias[j]
        gate[j] = x / (ONE + exp2(-x * LOG2_E)) * (up[j] + up_bias[j])
    _round(stage, row, superblock, size // SUPERBLOCK, at)
