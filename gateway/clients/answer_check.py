"""Whether what a service answers can be true. What cannot would end up in sums, logarithms and texts."""

from collections.abc import Sequence
from itertools import chain
from math import inf

from shared.pb import specdec_pb2 as pb

_SLACK_US = 1000  # what is measured apart need not add up


def problem_in(
    response: pb.VerifyResponse, asked: tuple[int, int], draft_ids: Sequence[int], room: int, vocab_size: int
) -> str:
    """Return what is wrong with the answer to a verify; nothing if it can be true.

    asked: round and position. room: how many tokens may still be committed. vocab_size: 0 if it is not known.
    """
    token_ids, accepted = list(response.token_ids), response.num_accepted
    if (answered := (response.round, response.position)) != asked or response.HasField("opened"):
        return f"it answers round and position {answered}, not {asked}"
    if not 1 <= len(token_ids) <= min(len(draft_ids) + 1, room):
        return f"{len(token_ids)} tokens for {len(draft_ids)} draft tokens, where {room} may follow"
    if not len(token_ids) - 1 <= accepted <= len(draft_ids) or (
        accepted and token_ids[:accepted] != list(draft_ids[:accepted])
    ):
        return f"it does not begin with the {accepted} draft tokens that it accepts"
    if not within(token_ids, vocab_size):
        return f"a token is outside the vocabulary of {vocab_size}"
    for entry in chain(response.logprobs, response.prompt_logprobs):
        if not within(entry.top_token_ids, vocab_size) or len(entry.top_token_ids) != len(entry.top_logprobs):
            return f"its log-probabilities are not those of tokens in the vocabulary of {vocab_size}"
    return ""


def sane(timing: pb.StepTiming, waited_seconds: float = inf) -> bool:
    """Return whether a timing can be true of an answer that was waited for so long."""
    spent_us = (timing.queue_us, timing.forward_us, timing.sample_us)
    counts = (timing.num_passes, timing.num_rows, timing.num_sessions)
    if min(counts) < 0 or (max(counts) > 0 and not min(counts)):
        return False
    return min(spent_us) >= -_SLACK_US and sum(spent_us) <= waited_seconds * 1e6 + _SLACK_US


def within(token_ids: Sequence[int], vocab_size: int) -> bool:
    """Return whether all are tokens; a vocabulary of unknown size, 0, has no end."""
    return not token_ids or (min(token_ids) >= 0 and max(token_ids) < (vocab_size or 2**31))
