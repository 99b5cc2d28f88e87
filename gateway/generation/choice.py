"""What to decode for one choice of a request, and what a round adds to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.generation.round_report import RoundReport
from gateway.parsing.reply_format import PLAIN, ReplyFormat
from gateway.parsing.reply_parser import Parts, ReplyFinish
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams


@dataclass(frozen=True)
class TokenLogprobs:
    """What the target held of one token of the reply, and of the likeliest in its place."""

    token_id: int
    offset: int
    """Where the token's text begins in the reply."""
    told: pb.TokenLogprobs | None
    """None for the first token of a prompt, which follows nothing."""


@dataclass(frozen=True)
class Choice:
    """What to decode for one choice."""

    index: int
    prompt_ids: list[int]
    params: SamplingParams
    max_tokens: int
    k: int | None
    """How many tokens to ask of the draft model in a round; None is as many as pay."""
    num_lookup_tokens: int | None
    """How many to look up, likewise."""
    stop_strings: tuple[str, ...]
    predicted_ids: Sequence[int] = ()
    include_stop: bool = False
    """Whether a stop string, or the text of a stop token, is part of the reply."""
    form: ReplyFormat = PLAIN
    grammar_field: str = ""
    """The field of the request that asks for a grammar."""
    echo: str = ""
    """What the reply begins with, before the first token."""
    first: bool = True
    """Whether it is the first one of its prompt, for which the prompt is counted."""


@dataclass(frozen=True)
class Delta:
    """What one round added to a choice; the choice's last one has a finish reason."""

    index: int
    parts: Parts
    finish_reason: ReplyFinish | None
    logprobs: list[TokenLogprobs]
    """One a token, where they were asked for."""
    report: RoundReport
    """The round itself."""
