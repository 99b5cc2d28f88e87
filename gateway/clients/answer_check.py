"""Whether what a service answers can be true. What cannot would end up in sums, logarithms and texts."""

from collections.abc import Sequence
from math import inf

from shared.pb import specdec_pb2 as pb

_SLACK_US = 1000  # what is measured apart need not add up


def problem_in(
    response: pb.VerifyResponse, asked: tuple[int, int], draft_ids: Sequence[int], room: int, vocab_size: int
) -> str:
    """Return what is wrong with the answer to a verify; nothing if it can be true.

    asked: round and position. room: how many tokens may still be committed. vocab_size: 0 if it is not known.
    """
    answered, token_ids, accepted = (response.round, response.position), list(response.token_ids), response.num_accepted
    num_tokens, num_drafted = len(token_ids), len(draft_ids)
    if answered != asked or response.HasField("opened"):
        return f"it answers round and position {answered}, not {asked}"
    if not 1 <= num_tokens <= num_drafted + 1 or num_tokens > room:
        return f"{num_tokens} tokens for {num_drafted} draft tokens, where {room} may follow"
    if not num_tokens - 1 <= accepted <= num_drafted or (
        accepted and token_ids[:accepted] != list(draft_ids[:accepted])
    ):
        return f"it does not begin with the {accepted} draft tokens that it accepts"
    if not within(token_ids, vocab_size):
        return f"a token is outside the vocabulary of {vocab_size}"
    for logprobs in (response.logprobs, response.prompt_logprobs):
        for entry in logprobs:
            if not within(entry.top_token_ids, vocab_size) or len(entry.top_token_ids) != len(entry.top_logprobs):
                return f"its log-probabilities are not those of tokens in the vocabulary of {vocab_size}"
    return ""


def sane(timing: pb.StepTiming, waited_seconds: float = inf) -> bool:
    """Return whether a timing can be true of an answer that was waited for so long."""
    queue_us, forward_us, sample_us = timing.queue_us, timing.forward_us, timing.sample_us
    num_passes, num_rows, num_sessions = timing.num_passes, timing.num_rows, timing.num_sessions
    return (
        queue_us >= -_SLACK_US
        and forward_us >= -_SLACK_US
        and sample_us >= -_SLACK_US
        and queue_us + forward_us + sample_us <= waited_seconds * 1e6 + _SLACK_US
        and ((num_passes > 0 and num_rows > 0 and num_sessions > 0) or num_passes == num_rows == num_sessions == 0)
    )


def within(token_ids: Sequence[int], vocab_size: int) -> bool:
    """Return whether all are tokens; a vocabulary of unknown size, 0, has no end."""
    return not token_ids or (min(token_ids) >= 0 and max(token_ids) < (vocab_size or 2**31))
