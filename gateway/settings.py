"""Settings of the gateway."""

from typing import Literal

from pydantic import Field, NonNegativeInt

from shared.settings import Settings


class GatewaySettings(Settings):
    """How the gateway runs."""

    tokenizer: str
    """The Hugging Face folder or hub id of the target's tokenizer."""
    model_name: str = "outrider"
    """What clients call the model."""
    host: str = "127.0.0.1"
    """The address on which it serves HTTP."""
    port: int = Field(8000, ge=0, le=65535)
    """The port on which it serves HTTP."""
    target: str = "127.0.0.1:50052"
    """Address of the target service, or a gRPC name of several replicas: `dns:///host:port`, `ipv4:a:port,b:port`."""
    one_identity: bool = False
    """Whether replicas of the target must have the same kernel and numerics, not only the same model."""
    draft: str = "127.0.0.1:50051"
    """Address of the draft service, or a gRPC name of its replicas; empty decodes without draft tokens."""
    default_k: NonNegativeInt | Literal["auto"] = "auto"
    """How many tokens the draft model makes in a round if the request does not say; `auto`: as many as pay."""
    default_lookup_tokens: NonNegativeInt | Literal["auto"] = "auto"
    """How many draft tokens a round looks up if the request does not say; `auto`: as many as pay."""
    max_k: int = Field(12, ge=1, le=31)
    """The largest number that `auto` chooses."""
    draft_deadline_seconds: float = Field(1.0, gt=0)
    """How many seconds a round waits for its draft tokens at most: less once it is known what the draft takes."""
    open_timeout_seconds: float = Field(60, gt=0)
    """How many seconds a session waits for a target to take it, beside the wait for a slot."""
    first_token_timeout_seconds: float = Field(300, gt=0)
    """How many seconds a session waits for the first round, which runs its prompt, before it tries another target."""
    round_timeout_seconds: float = Field(60, gt=0)
    """How many seconds a session waits for any other round before it tries another target."""
    start_timeout_seconds: float = Field(300, gt=0)
    """How many seconds startup waits for the target service."""
    grace_seconds: int = Field(30, ge=0)
    """How many seconds shutdown waits for open requests."""
