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
    """How many seconds a round waits for its draft tokens."""
    max_body_bytes: int = Field(2**24, ge=1)
    """The most bytes of a request's body."""
    max_json_values: int = Field(100_000, ge=1)
    """The most JSON values of a request's body, not counting as many token ids as fit the context."""
    max_choices: int = Field(1024, ge=1)
    """The most choices of a request: its prompts times `n`."""
    max_waiting_work: int = Field(1024, ge=0)
    """How many requests may wait to be read and tokenized, for which there are as many threads as cores."""
    start_timeout_seconds: float = Field(300, gt=0)
    """How many seconds startup waits for the target service."""
    grace_seconds: int = Field(30, ge=0)
    """How many seconds shutdown waits for open requests."""
