"""Decides which draft tokens stand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from shared.errors import NoTokenError
from shared.model.runner import NO_TOKEN, Rows
from shared.model.sampling.sampler import Sampler
from shared.pb import specdec_pb2 as pb


@dataclass(frozen=True)
class Verdict:
    """What one round commits: the accepted draft tokens, then the recovered or the bonus token."""

    num_accepted: int
    token_ids: list[int]
    logprobs: list[pb.TokenLogprobs]
    """One a token where they were asked for, or none."""


def verify(rows: Rows, draft_ids: Sequence[int], sampler: Sampler, position: int) -> Verdict:
    """Draw the target's own sample at each row for as long as the draft tokens before the row equal the samples.

    A draft token is accepted if and only if it equals the sample, so the outcome is exactly what decoding token by
    token gives. With no draft tokens, this is plain decoding. The sampler's history holds committed tokens only.

    Tokens that the device drew are used as they are. Raises NoTokenError at a row from which no token can be drawn; the
    sampler then is as before.

    rows: k+1 of them, row i following the i-th draft token. position: where the first of the tokens will stand.
    """
    params = sampler.params
    token_ids: list[int] = []
    try:
        for token_id, draft_id in zip(_samples(rows, sampler, position), [*draft_ids, None], strict=True):
            token_ids.append(token_id)
            if token_ids[-1] in params.stop_token_ids or token_ids[-1] != draft_id or sampler.ended:
                break
    except NoTokenError:
        sampler.pop(token_ids)
        raise
    accepted = sum(ours == theirs for ours, theirs in zip(token_ids, draft_ids, strict=False))
    scored = zip(rows.logits, token_ids, strict=False) if params.logprobs else ()
    return Verdict(accepted, token_ids, [_logprobs(row, token_id, params.top_logprobs) for row, token_id in scored])


def _samples(rows: Rows, sampler: Sampler, position: int) -> Iterator[int]:
    for at, sample in enumerate(rows.drawn or rows.logits, position):
        token_id = sample if isinstance(sample, int) else sampler.draw(sample, at)
        if token_id == NO_TOKEN:
            raise NoTokenError(f"no token can be drawn at position {at}, says the device")
        yield token_id


def _logprobs(logits: torch.Tensor, token_id: int, num_top: int) -> pb.TokenLogprobs:
    """Return the model's own log-probabilities of a token and of the likeliest tokens. logits: [V]."""
    logprobs = logits.float().log_softmax(-1)
    top = torch.topk(logprobs, min(num_top, logprobs.numel()))
    return pb.TokenLogprobs(
        logprob=float(logprobs[token_id]), top_token_ids=top.indices.tolist(), top_logprobs=top.values.tolist()
    )
