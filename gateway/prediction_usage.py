"""What became of a predicted output."""

from collections.abc import Sequence
from difflib import SequenceMatcher


def num_in_reply(predicted_ids: Sequence[int], reply_ids: Sequence[int]) -> int:
    """Return how many tokens of the prediction appear in the reply, in order: OpenAI's accepted prediction tokens.

    By the texts alone: it says what the prediction was worth, whoever proposed what, with speculation on or off. Takes
    CPU time: call it in a thread.
    """
    return sum(block.size for block in SequenceMatcher(None, predicted_ids, reply_ids).get_matching_blocks())
