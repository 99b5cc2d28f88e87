"""What to decode for one choice of a request."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.parsing.reply_format import PLAIN, ReplyFormat
from shared.sampling_params import SamplingParams


@dataclass(frozen=True)
class Choice:
    """What to decode for one choice."""

    index: int
    prompt_ids: Sequence[int]
    """The prompt. The planner gives an array: a list of integers takes nine times as much for as long as it waits."""
    params: SamplingParams
    max_tokens: int
    """The most tokens of the reply: those that the request allows, or those that the context has left."""
    k: int | None
    """How many tokens to ask of the draft model in a round; None means as many as pay."""
    num_lookup_tokens: int | None
    """How many draft tokens to look up in a round; None means as many as pay."""
    stop_strings: tuple[str, ...]
    predicted_ids: Sequence[int] = ()
    cut: bool = False
    """Whether the request allows more than the context has left."""
    forced: bool = True
    """Whether the draft model adds tokens that the grammar forces."""
    memory: bool = True
    """Whether the draft service looks up what earlier choices said, and keeps what this one says."""
    include_stop: bool = False
    """Whether a stop string, or the text of a stop token, is part of the reply."""
    namespace: str = ""
    """Whose it is: what earlier choices of the same namespace left at the services is used."""
    form: ReplyFormat = PLAIN
    grammar_field: str = ""
    """The field of the request that asks for a grammar."""
    echo: str = ""
    """What the reply begins with, before the first token."""
    first: bool = True
    """Whether it is the first choice of its prompt, whose tokens are counted with this choice alone."""
