"""Decides which draft tokens stand."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shared.model.sampler import draw
from shared.sampling_params import SamplingParams


@dataclass(frozen=True)
class Verdict:
    """What one round commits: the accepted draft tokens, then the recovered or the bonus token."""

    num_accepted: int
    token_ids: list[int]


def verify(logits: torch.Tensor, draft_ids: Sequence[int], params: SamplingParams, position: int) -> Verdict:
    """Draw the target's own sample at each row for as long as the draft tokens before the row equal the samples.

    A draft token is accepted if and only if it equals the sample, so the outcome is exactly what decoding token by
    token gives. With no draft tokens this is decoding token by token.

    logits: [k+1, V], row i following the i-th draft token. position: where the first of the tokens will stand.
    """
    token_ids: list[int] = []
    for row, draft_id in zip(logits, [*draft_ids, None], strict=True):
        token_ids.append(draw(row, params, position + len(token_ids)))
        if token_ids[-1] in params.stop_token_ids or token_ids[-1] != draft_id:
            break
    accepted = sum(ours == theirs for ours, theirs in zip(token_ids, draft_ids, strict=False))
    return Verdict(accepted, token_ids)
