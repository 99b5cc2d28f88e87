"""How much of a prediction came true."""

from collections import defaultdict
from collections.abc import Sequence

_BLOCK = 8192  # bits that are worked on at once: with more, the masks take more memory, with fewer, more steps


def num_in_reply(predicted_ids: Sequence[int], reply_ids: Sequence[int]) -> int:
    """Return how many tokens of the prediction appear in the reply, in order: OpenAI's accepted prediction tokens.

    It is the length of the longest common subsequence. It follows from the texts alone, so it tells what the prediction
    was worth whichever proposer was used, and even without speculation. Takes CPU time: call it in a thread.

    Bit-parallel (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004): a step takes a token of the longer
    sequence against a block of the shorter one, whatever they repeat.
    """
    shorter, longer = sorted((predicted_ids, reply_ids), key=len)
    start = _num_equal(shorter, longer)
    end = _num_equal(shorter[start:][::-1], longer[start:][::-1])
    shorter, longer = shorter[start : len(shorter) - end], longer[start : len(longer) - end]
    known = set(shorter)
    longer = [token_id for token_id in longer if token_id in known]
    carries, length = bytearray(len(longer)), start + end
    for at in range(0, len(shorter), _BLOCK):
        length += _num_common(shorter[at : at + _BLOCK], longer, carries)
    return length


def _num_equal(a: Sequence[int], b: Sequence[int]) -> int:
    """Return with how many equal tokens both begin."""
    return next((number for number, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _num_common(block: Sequence[int], tokens: Sequence[int], carries: bytearray) -> int:
    """Return what a block adds to the length; `carries` has what each step hands on from block to block."""
    masks = defaultdict[int, int](int)
    for number, token_id in enumerate(block):
        masks[token_id] |= 1 << number
    whole = row = (1 << len(block)) - 1
    for step, token_id in enumerate(tokens):
        matches = row & masks.get(token_id, 0)
        if matches or carries[step]:
            total = row + matches + carries[step]
            carries[step] = total >> len(block)
            row = (total & whole) | (row - matches)
    return len(block) - row.bit_count()
