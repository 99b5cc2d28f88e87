"""How tokens are sampled."""

import math
from dataclasses import dataclass

from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb

SEED_RANGE = range(-(2**63), 2**63)


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are sampled; each field means what it means in the proto file.

    Raises InvalidFieldError where a value is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop_token_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Check every range."""
        if not 0 <= self.temperature < math.inf:
            raise InvalidFieldError("temperature", f"{self.temperature} is not a number of at least 0")
        if not 0 < self.top_p <= 1:
            raise InvalidFieldError("top_p", f"{self.top_p} is not above 0 and at most 1")
        if self.top_k < 0:
            raise InvalidFieldError("top_k", f"{self.top_k} is negative")
        if self.seed not in SEED_RANGE:
            raise InvalidFieldError("seed", f"{self.seed} does not fit in 64 bits")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, without noise."""
        return self.temperature == 0

    @classmethod
    def from_pb(cls, message: pb.SamplingParams) -> "SamplingParams":
        """Read the message. Raises InvalidFieldError."""
        return cls(message.temperature, message.top_p, message.top_k, message.seed, frozenset(message.stop_token_ids))

    def to_pb(self) -> pb.SamplingParams:
        """Write the message."""
        return pb.SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            stop_token_ids=sorted(self.stop_token_ids),
        )
