"""What a round adds to a choice."""

from dataclasses import dataclass, replace
from typing import Self

from gateway.generation.round_report import RoundReport
from gateway.parsing.reply_parser import ReplyFinish
from gateway.parsing.reply_parts import ReplyParts
from shared.pb import specdec_pb2 as pb


@dataclass(frozen=True)
class ScoredToken:
    """A token of the reply, with its log-probability and those of the likeliest tokens at its position."""

    token_id: int
    offset: int
    """Where the token's text begins in the reply, in characters."""
    logprobs: pb.TokenLogprobs | None
    """None for the first token of a prompt, which follows nothing."""


@dataclass(frozen=True)
class Delta:
    """What one round added to a choice; the choice's last one has a finish reason."""

    index: int
    """Of the choice."""
    parts: ReplyParts
    finish_reason: ReplyFinish | None
    logprobs: list[ScoredToken]
    """One per token if asked for; in the first delta, the prompt's come first if those were asked for."""
    report: RoundReport
    """The round itself."""
    num_reasoning_tokens: int = 0
    """How many more of the reply's tokens are known to be reasoning; negative if the reply turned out to have none."""
    stop_string: str = ""
    """The stop string that ended the choice, if one did."""
    num_cached_tokens: int = 0
    """How many of the prompt's tokens the target had in its cache, in the first delta of a prompt."""

    def emitted(self, seconds: float) -> Self:
        """Add the time it took to turn the round into text."""
        round_ = replace(self.report.round_, time=self.report.round_.time.emitted(seconds))
        return replace(self, report=replace(self.report, round_=round_))
