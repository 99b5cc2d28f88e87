"""What the stages of attention compute: an item is a row that goes into the cache, or a few rows and a head of keys.

Queries, keys, values and their weights are rounded to bfloat16, two of them adjacent in a word that are added up at
once, see `key_products` and `value_products`. Scores and sums are float32.
"""

import numpy as np
from numba import carray

from shared.model.devices.cpu.compiled_code.attention_product import KEY_BLOCK, ask, key_products, value_products
from shared.model.devices.cpu.compiled_code.float_math import ONE, ZERO, compiled, exp2, squares, to_bfloat16
from shared.model.devices.cpu.compiled_code.shared_memory import floats_at, longs_at, number, shorts_at, words_at
from shared.model.devices.cpu.compiled_code.softmax_block import largest, weigh
from shared.model.devices.cpu.compiled_code.stage_numbers import Attend, Rotate

# As numba knows them.
_HEADS, _KV_HEADS, _HEAD_DIM, _MAX_LENGTH, _KEYS, _VALUES, _QUERIES, _PLACES = (int(at) for at in list(Rotate)[:8])
_PRODUCTS, _BIAS, _NORMS, _CONSTANTS, _COS, _SIN = (int(at) for at in list(Rotate)[8:])
_GROUPS, _SCORES, _WEIGHTS, _PEAKS, _SUMS = (int(place) for place in Attend)

_NONE = -np.float32(np.inf)
_SHORT = np.int32(16)
_LOW = np.int32(0xFFFF)

_AHEAD = 2  # blocks of keys that are asked for before they are needed


@compiled
def rotate(stage: int, row: int) -> None:
    """Make queries, keys and values of a row's products, and write them."""
    heads, kv_heads, head_dim = number(stage, _HEADS), number(stage, _KV_HEADS), number(stage, _HEAD_DIM)
    half, max_length = head_dim // 2, number(stage, _MAX_LENGTH)
    places = carray(longs_at(number(stage, _PLACES) + 16 * row), 2)
    constants = carray(floats_at(number(stage, _CONSTANTS)), 2)
    cos = carray(floats_at(number(stage, _COS) + 4 * row * head_dim), head_dim)
    sin = carray(floats_at(number(stage, _SIN) + 4 * row * head_dim), head_dim)
    for place in range(heads + 2 * kv_heads):
        at = number(stage, _PRODUCTS) + 4 * head_dim * (row * (heads + 2 * kv_heads) + place)
        head = carray(floats_at(at), head_dim)
        bias = carray(floats_at(number(stage, _BIAS) + 4 * place * head_dim), head_dim)
        for j in range(head_dim):
            head[j] += bias[j]
        kept = place - heads if place < heads + kv_heads else place - heads - kv_heads
        first = (places[0] * kv_heads + kept) * max_length + places[1] // KEY_BLOCK * KEY_BLOCK
        block, within = 2 * head_dim * first, places[1] % KEY_BLOCK
        if place >= heads + kv_heads:
            pair = number(stage, _VALUES) + block + 4 * head_dim * (within // 2)
            _write_halves(at, pair + 2 * (within % 2), head_dim)
            continue
        if number(stage, _NORMS):
            norm = number(stage, _NORMS) + (0 if place < heads else 4 * head_dim)
            weight = carray(floats_at(norm), head_dim)
            inverse = ONE / np.sqrt(squares(head) / np.float32(head_dim) + constants[0])
            for j in range(head_dim):
                head[j] *= inverse * weight[j]
        scale = constants[1] if place < heads else ONE
        for j in range(half):
            left, right = head[j], head[half + j]
            head[j] = (left * cos[j] - right * sin[j]) * scale
            head[half + j] = (right * cos[half + j] + left * sin[half + j]) * scale
        if place < heads:
            _write_pairs(at, number(stage, _QUERIES) + 2 * head_dim * (row * heads + place), 1, head_dim)
        else:
            _write_pairs(at, number(stage, _KEYS) + block + 4 * within, KEY_BLOCK, head_dim)


@compiled
def _write_pairs(head: int, written: int, stride: int, head_dim: int) -> None:
    """Round a head's numbers, and write two neighbours into one word."""
    numbers, words = carray(words_at(head), head_dim), carray(words_at(written), stride * head_dim // 2)
    for j in range(head_dim // 2):
        low = (to_bfloat16(numbers[2 * j]) >> _SHORT) & _LOW
        words[stride * j] = to_bfloat16(numbers[2 * j + 1]) | low


@compiled
def _write_halves(head: int, written: int, head_dim: int) -> None:
    """Round a head's numbers, and write each into one half of a word."""
    numbers, halves = carray(words_at(head), head_dim), carray(shorts_at(written), 2 * head_dim)
    for j in range(head_dim):
        halves[2 * j] = np.int16(to_bfloat16(numbers[j]) >> _SHORT)


@compiled
def attend(stage: int, item: int) -> None:
    """Attend to a block of keys after another, with what came before scaled to the largest score so far."""
    heads, kv_heads, head_dim = number(stage, _HEADS), number(stage, _KV_HEADS), number(stage, _HEAD_DIM)
    group, kv_head = heads // kv_heads, item % kv_heads
    rows = carray(longs_at(number(stage, _GROUPS) + 16 * (item // kv_heads)), 2)
    places = carray(longs_at(number(stage, _PLACES) + 16 * rows[0]), 2 * rows[1])
    cached = 2 * head_dim * number(stage, _MAX_LENGTH) * (places[0] * kv_heads + kv_head)
    for first in range(0, places[2 * rows[1] - 1] + 1, KEY_BLOCK):
        block, size = cached + 2 * head_dim * first, 2 * head_dim * KEY_BLOCK
        for i in range(rows[1]):
            ahead, share = block + _AHEAD * size + size // rows[1] * i, size // rows[1]
            ask(number(stage, _KEYS) + ahead, share)
            ask(number(stage, _VALUES) + ahead, share)
            num_keys = min(places[2 * i + 1] + 1 - first, KEY_BLOCK)
            if num_keys <= 0:
                continue
            head = (rows[0] + i) * heads + kv_head * group
            queries, sums = number(stage, _QUERIES) + 2 * head_dim * head, number(stage, _SUMS) + 4 * head_dim * head
            scores = number(stage, _SCORES) + 4 * KEY_BLOCK * head
            weights = number(stage, _WEIGHTS) + 2 * KEY_BLOCK * head
            key_products(queries, number(stage, _KEYS) + block, scores, group, head_dim)
            for query in range(group):
                peaks, its_sums = number(stage, _PEAKS) + 8 * (head + query), sums + 4 * head_dim * query
                its_scores, its_weights = scores + 4 * KEY_BLOCK * query, weights + 2 * KEY_BLOCK * query
                _to_weights(first, num_keys, its_scores, its_weights, peaks, its_sums, head_dim)
            value_products(weights, number(stage, _VALUES) + block, sums, group, head_dim, num_keys)
    for i in range(rows[1]):
        for query in range(group):
            head = (rows[0] + i) * heads + kv_head * group + query
            total = carray(floats_at(number(stage, _PEAKS) + 8 * head), 2)[1]
            sums_of = carray(floats_at(number(stage, _SUMS) + 4 * head_dim * head), head_dim)
            for j in range(head_dim):
                sums_of[j] /= total


@compiled
def _to_weights(first: int, num_keys: int, scores: int, weights: int, peaks: int, sums: int, head_dim: int) -> None:
    """Make weights of a query's scores, and scale what was summed up before them."""
    kept, summed = carray(floats_at(peaks), 2), carray(floats_at(sums), head_dim)
    if not first:
        kept[0], kept[1] = _NONE, ZERO
        for j in range(head_dim):
            summed[j] = ZERO
    peak = max(kept[0], largest(scores, num_keys))
    if first and peak > kept[0]:
        scale = exp2(kept[0] - peak)
        kept[1] *= scale
        for j in range(head_dim):
            summed[j] *= scale
    kept[0] = peak
    kept[1] += weigh(scores, num_keys, peak, weights)
