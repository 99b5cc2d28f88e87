"""What the whole numbers mean that a stage of a forward pass is made of.

Its kind, the next item that nobody has taken yet, how many are done, how many it has, then what its kind needs: sizes,
and addresses of contiguous arrays, of float32 where nothing else is said.
"""

from enum import IntEnum

WIDTH = 20  # numbers of a stage
KIND, NEXT, DONE, ITEMS = 0, 1, 2, 3


class Kind(IntEnum):
    """The kinds of stages, and what an item of each is."""

    NORM = 0  # a row: add products, normalize, round
    ROTATE = 1  # a row: queries, and keys and values into the cache
    ATTEND = 2  # neighbouring rows of one session, and a head of keys
    ROUND = 3  # a row
    GATE = 4  # a superblock of a row
    Q4_K = 5  # tiles
    Q5_K = 6
    Q6_K = 7


class Norm(IntEnum):
    """Of a NORM stage; ROUND has the first two, and the places of the rounded rows are a product's, see `Task`."""

    SIZE = 4
    ROWS = 5  # [rows, size], written
    PRODUCTS = 6  # [rows, size], added to the rows; or 0
    BIAS = 7  # [size], likewise
    WEIGHT = 8  # [size]; or 0: nothing is normalized
    EPS = 9  # [1]
    NORMAL = 10  # [rows, size], written


class Gate(IntEnum):
    """Of a GATE stage."""

    SIZE = 4
    PRODUCTS = 5  # [rows, 2 * size], written
    BIAS = 6  # [2 * size]


class Rotate(IntEnum):
    """Of a ROTATE stage."""

    HEADS = 4
    KV_HEADS = 5
    HEAD_DIM = 6
    MAX_LENGTH = 7
    KEYS = 8  # [slots, kv_heads, max_length / KEY_BLOCK, head_dim / 2, KEY_BLOCK, 2] bfloat16, written
    VALUES = 9  # [slots, kv_heads, max_length / 2, head_dim, 2] bfloat16, written
    QUERIES = 10  # [rows, heads, head_dim] bfloat16, written, and scaled
    PLACES = 11  # [rows, 2] int64: slot, position
    PRODUCTS = 12  # [rows, (heads + 2 kv_heads) * head_dim], written
    BIAS = 13  # [(heads + 2 kv_heads) * head_dim]
    NORMS = 14  # [2, head_dim], the weights for queries and keys; or 0
    CONSTANTS = 15  # [2]: their eps, and what queries are scaled by, times log2 e
    COS = 16  # [rows, head_dim]
    SIN = 17  # [rows, head_dim]


class Attend(IntEnum):
    """Of an ATTEND stage, which begins as a ROTATE stage does."""

    GROUPS = 12  # [groups, 2] int64: first row, number of rows
    SCORES = 13  # [rows, heads, KEY_BLOCK], to use
    WEIGHTS = 14  # [rows, heads, KEY_BLOCK] bfloat16, to use
    PEAKS = 15  # [rows, heads, 2], to use: the largest score so far, and the sum of the weights
    SUMS = 16  # [rows, heads, head_dim], written
