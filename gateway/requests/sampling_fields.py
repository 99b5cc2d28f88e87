"""The sampling fields that all requests have in common, and our own `speculative` object."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.requests.base import FailFast, Many, Schema, at_most
from shared.sampling_params import MAX_TOP_LOGPROBS

StopString = Annotated[str, Field(min_length=1, max_length=256)]
MAX_STOPS = 256  # of which editors send 30
MAX_TOKEN_IDS = 4096
TokenId = Annotated[str, Field(pattern="^[0-9]{1,9}$")]  # the keys of JSON are strings
TopLogprobs = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)]


class Speculative(Schema):
    """How to speculate. Nothing here changes the tokens of the reply."""

    enabled: bool = True
    proposer: Literal["auto", "model", "lookup"] = "auto"
    """`lookup` takes draft tokens from the text and the prediction alone, `model` from the draft model alone."""
    k: Annotated[int, Field(ge=1)] | None = None
    forced: bool = True
    """Whether the draft model adds, beside its k, tokens that the grammar forces."""
    memory: bool = True
    """Whether draft tokens may come from what earlier replies said, and the reply is kept for later ones."""
    metrics: bool = False
    """Whether to report how speculation did."""
    rounds: bool = False
    """Whether to report each round."""


class SamplingFields(Schema):
    """How tokens are sampled."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] = 0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[Many[StopString], at_most(MAX_STOPS)] = Field([])
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], FailFast, at_most(MAX_TOKEN_IDS)] = (
        Field({})
    )
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: Annotated[Many[Annotated[int, Field(ge=0, lt=2**31)]], at_most(MAX_TOKEN_IDS)] = Field([])
    include_stop_str_in_output: bool = False
    cache_salt: Annotated[str, Field(min_length=1)] | None = None
    """Keeps what this request leaves, and finds, apart from requests with another salt or none."""
    speculative: Speculative = Speculative()

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none to MAX_STOPS."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
