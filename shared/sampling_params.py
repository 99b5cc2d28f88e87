"""How tokens are sampled."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb

# Between two parts of a JSON text: enough to indent, but bounded, since some models would otherwise never stop.
JSON_WHITESPACE = r"[\x20\x0A\x0D\x09]{0,20}"
GREEDY_BELOW = 1e-5  # of temperature, as in vLLM
MAX_LISTED = {"stop_token_ids": 2**18, "logit_bias": 4096}  # of the first, as many as a large vocabulary has
MAX_GRAMMAR_CHARACTERS = 2**19
MAX_TOP_LOGPROBS = 20  # vLLM's limit, and OpenAI's for chats
RANGES: dict[str, tuple[float, float]] = {  # both ends included
    "temperature": (0, 1e9),
    "top_p": (0, 1),
    "top_k": (0, 2**31 - 1),
    "seed": (-(2**63), 2**63 - 1),
    "min_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "repetition_penalty": (0, 1000),
    "min_tokens": (0, 2**31 - 1),
    "top_logprobs": (0, MAX_TOP_LOGPROBS),
}


@dataclass(frozen=True)
class Grammar:
    """What the output must conform to: the grammar's text, and the proto field that holds it."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are sampled; the proto file describes each field.

    Raises InvalidFieldError where a value is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    min_tokens: int = 0
    output_start: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        """Check every range."""
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidFieldError(name, f"{value} is not between {low} and {high}")
        for name in ("top_p", "repetition_penalty"):
            if getattr(self, name) == 0:
                raise InvalidFieldError(name, "0 is not above 0")
        for token_id, bias in self.logit_bias.items():
            if not math.isfinite(bias):
                raise InvalidFieldError(f"logit_bias.{token_id}", f"{bias} is not a finite number")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, without noise."""
        return self.temperature < GREEDY_BELOW

    @classmethod
    def from_pb(cls, message: pb.SamplingParams) -> "SamplingParams":
        """Read the message. Raises InvalidFieldError."""
        for listed, limit in MAX_LISTED.items():
            if (count := len(getattr(message, listed))) > limit:
                raise InvalidFieldError(listed, f"{count} of them, at most {limit}")
        values = {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
        kinds = [field.name for field in message.DESCRIPTOR.oneofs_by_name["grammar"].fields]
        texts = {kind: values.pop(kind) for kind in kinds}
        kind = message.WhichOneof("grammar")
        values["grammar"] = Grammar(kind, texts[kind]) if kind else None
        for name in ("repetition_penalty", "output_start"):
            if not message.HasField(name):
                del values[name]
        values["stop_token_ids"] = frozenset(message.stop_token_ids)
        values["logit_bias"] = dict(message.logit_bias)
        return cls(**values)

    def to_pb(self) -> pb.SamplingParams:
        """Write the message."""
        values = {name: value for name, value in vars(self).items() if name != "grammar"}
        message = pb.SamplingParams(**values)
        if self.grammar:
            setattr(message, self.grammar.kind, self.grammar.text)
        return message
