"""What a rotated model with weights of 8 bits computes between its products, each row by one loop over its numbers.

torch takes some 90 small operations a layer for it, each of which costs more than the few thousand numbers that it goes
through. A row's bits depend on that row alone: its loops have a fixed length, LLVM may not contract a product and a
sum, and only the sum of squares may be taken in another order, the same one for each row.
"""

import numpy as np
from numpy.typing import NDArray

from shared.model.devices.cpu.compiled_code import kept_code
from shared.model.devices.cpu.compiled_code.float_math import MAGNITUDE
from shared.model.devices.cpu.compiled_code.kept_code import loop
from shared.model.devices.cpu.kernels.int8_linear import LEAST

_Floats = NDArray[np.float32]
_Indices = NDArray[np.int64]

_LEAST = np.float32(LEAST)


def prepare() -> None:
    """Compile all loops, or take them from the cache."""
    kept_code.prepare(_call_all)


def _call_all() -> None:
    """Call each loop with types as a pass has them."""
    one, row, ones = np.zeros(1, np.int64), np.ones((1, 32), np.float32), np.ones((1, 64), np.float32)
    steps, factors, step = np.empty_like(row), np.ones(1, np.float32), np.float32(1)
    cached, queries = np.zeros((1, 1, 1, 16), np.float32), np.empty((1, 2, 16), np.float32)
    blocks, norms = np.empty((1, 1, 2, 16), np.float32), np.empty((0, 16), np.float32)
    normed_to_steps(row, step, step, steps, factors)
    rotate(ones, factors, ones[0], norms, step, cached[0, 0], cached[0, 0], one, one, queries, cached, cached.copy())
    to_blocks(queries, one, blocks)
    attended_to_steps(blocks, one, step, steps, factors)
    add(row, steps, factors, row[0])
    gates(ones, factors, ones[0], row)
    gated_to_steps(row, ones, factors, ones[0], 16, step, steps, factors.copy())


@loop()
def normed_to_steps(rows: _Floats, eps: np.float32, top: np.float32, steps: _Floats, factors: _Floats) -> None:
    """Divide each row by its root mean square, and round it to whole numbers of which the largest is `top`.

    A number is its step times the row's factor. rows, steps: [rows, n]; factors: [rows]; the last two are written.
    """
    for i in range(len(rows)):
        largest = _largest(rows[i])
        _round(rows[i], top / largest, steps[i])
        factors[i] = largest / top / np.sqrt(_squares(rows[i]) / np.float32(rows.shape[1]) + eps)


@loop()
def attended_to_steps(blocks: _Floats, places: _Indices, top: np.float32, steps: _Floats, factors: _Floats) -> None:
    """Take each row from its place in the blocks of attention, and round it likewise.

    blocks: [blocks, kv_heads, block_rows * group, head_dim]; places: [rows], in blocks of block_rows.
    """
    kv_heads, head_dim = blocks.shape[1], blocks.shape[3]
    row = np.empty(steps.shape[1], np.float32)
    group = len(row) // kv_heads // head_dim
    block_rows = blocks.shape[2] // group
    for i in range(len(places)):
        block, at = places[i] // block_rows, places[i] % block_rows * group
        for head in range(kv_heads):
            for query in range(group):
                first = (head * group + query) * head_dim
                row[first : first + head_dim] = blocks[block, head, at + query]
        largest = _largest(row)
        _round(row, top / largest, steps[i])
        factors[i] = largest / top


@loop()
def add(rows: _Floats, products: _Floats, factors: _Floats, bias: _Floats) -> None:
    """Add to each row its product, times its factor. rows, products: [rows, n]; factors: [rows]; bias: [n]."""
    for i in range(len(rows)):
        row, product, factor = rows[i], products[i], factors[i]
        for j in range(len(bias)):
            row[j] += product[j] * factor + bias[j]


@loop()
def gates(products: _Floats, factors: _Floats, bias: _Floats, gate: _Floats) -> None:
    """Scale what goes through the activation function. products: [rows, 2n]; gate: [rows, n], written; bias: [2n]."""
    for i in range(len(gate)):
        row, product, factor = gate[i], products[i], factors[i]
        for j in range(len(row)):
            row[j] = product[j] * factor + bias[j]


@loop()
def gated_to_steps(  # what the last product of a layer is made of
    gate: _Floats,  # [rows, n], of the activation function
    products: _Floats,  # [rows, 2n]
    scales: _Floats,  # [rows], the factors of the products
    bias: _Floats,  # [2n]
    block: int,
    top: np.float32,
    steps: _Floats,  # [rows, n], written
    factors: _Floats,  # [rows], written
) -> None:
    """Multiply the gate by the second half of the products, turn each block of it, and round it likewise."""
    width = gate.shape[1]
    row, turned = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(len(gate)):
        product, added, scale = products[i, width:], bias[width:], scales[i]
        for j in range(width):
            row[j] = gate[i, j] * (product[j] * scale + added[j])
        _turn(row, block, turned)
        largest = _largest(row)
        _round(row, top / largest, steps[i])
        factors[i] = largest / top / np.sqrt(np.float32(block))


@loop()
def rotate(  # what a layer's queries, keys and values are made of and go to
    products: _Floats,  # [rows, (heads + 2 kv_heads) * head_dim]
    factors: _Floats,  # [rows]
    bias: _Floats,  # [(heads + 2 kv_heads) * head_dim]
    norms: _Floats,  # [2, head_dim], the weights for queries and keys; or [0, head_dim]
    eps: np.float32,
    cos: _Floats,  # [rows, head_dim]
    sin: _Floats,  # [rows, head_dim]
    slots: _Indices,  # [rows]
    positions: _Indices,  # [rows]
    queries: _Floats,  # [rows, heads, head_dim], written
    keys: _Floats,  # [slots, kv_heads, max_length, head_dim], written at (slot, position)
    values: _Floats,  # likewise
) -> None:
    """Rotate queries and keys by position, and write them and the values."""
    heads, head_dim, kv_heads = queries.shape[1], queries.shape[2], keys.shape[1]
    half = head_dim // 2
    head = np.empty(head_dim, np.float32)
    for i in range(len(queries)):
        slot, position, factor = slots[i], positions[i], factors[i]
        for number in range(heads + 2 * kv_heads):
            its = slice(number * head_dim, (number + 1) * head_dim)
            product, added = products[i, its], bias[its]
            for j in range(head_dim):
                head[j] = product[j] * factor + added[j]
            if number >= heads + kv_heads:
                values[slot, number - heads - kv_heads, position] = head
                continue
            if len(norms):
                norm = norms[0] if number < heads else norms[1]
                inverse = np.float32(1) / np.sqrt(_squares(head) / np.float32(head_dim) + eps)
                for j in range(head_dim):
                    head[j] *= inverse * norm[j]
            written = queries[i, number] if number < heads else keys[slot, number - heads, position]
            for j in range(half):
                written[j] = head[j] * cos[i, j] - head[half + j] * sin[i, j]
            for j in range(half, head_dim):
                written[j] = head[j] * cos[i, j] + head[j - half] * sin[i, j]


@loop()
def to_blocks(queries: _Floats, rows: _Indices, blocks: _Floats) -> None:
    """Lay out the queries for attention, those of heads that share a key as adjacent rows.

    queries: [rows, heads, head_dim]; rows: [blocks * block_rows], which stands where;
    blocks: [blocks, kv_heads, block_rows * group, head_dim], written.
    """
    kv_heads = blocks.shape[1]
    group = queries.shape[1] // kv_heads
    block_rows = blocks.shape[2] // group
    for place in range(len(rows)):
        for head in range(kv_heads):
            for query in range(group):
                at = place % block_rows * group + query
                blocks[place // block_rows, head, at] = queries[rows[place], head * group + query]


@loop()
def _turn(row: _Floats, block: int, turned: _Floats) -> None:
    """Multiply each block by a Hadamard matrix of ones. row: [n], written; turned: [n], to use.

    The numbers at one place of all blocks are laid side by side, so that one operation of the processor turns many.
    """
    num_blocks = len(row) // block
    for number in range(num_blocks):
        for place in range(block):
            turned[place * num_blocks + number] = row[number * block + place]
    half = num_blocks
    while half < len(row):
        for first in range(0, len(row), 2 * half):
            left, right = turned[first : first + half], turned[first + half : first + 2 * half]
            for j in range(half):
                total = left[j] + right[j]
                right[j] = left[j] - right[j]
                left[j] = total
        half *= 2
    for number in range(num_blocks):
        for place in range(block):
            row[number * block + place] = turned[place * num_blocks + number]


@loop()
def _largest(row: _Floats) -> np.float32:
    """Return the largest magnitude, or a NaN if there is one; never zero. row: [n]."""
    bits = row.view(np.int32)
    found = np.zeros(1, np.int32)
    largest = np.int32(0)
    for j in range(len(bits)):
        largest = max(largest, bits[j] & MAGNITUDE)
    found[0] = largest
    magnitude: np.float32 = found.view(np.float32)[0]
    return _LEAST if magnitude < _LEAST else magnitude


@loop(fastmath={"reassoc", "nsz"})
def _squares(row: _Floats) -> np.float32:
    """Return the sum of the squares, in an order that depends on the processor and the length alone. row: [n]."""
    total = np.float32(0)
    for j in range(len(row)):
        total += row[j] * row[j]
    return total


@loop()
def _round(row: _Floats, scale: np.float32, steps: _Floats) -> None:
    """Scale and round, half to even. row, steps: [n]."""
    for j in range(len(row)):
        steps[j] = np.rint(row[j] * scale)
