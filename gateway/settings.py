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
    """Where it listens for HTTP: the interface's address."""
    port: int = Field(8000, ge=0, le=65535)
    """Where it listens for HTTP: the port."""
    target: str = "127.0.0.1:50052"
    """Address of the target service, or a gRPC name of several replicas: `dns:///host:port`, `ipv4:a:port,b:port`."""
    one_identity: bool = False
    """Whether replicas of the target have to agree in kernel and numerics, too, and not in the model alone."""
    draft: str = "127.0.0.1:50051"
    """Likewise of the draft service; empty decodes plainly."""
    default_k: NonNegativeInt | Literal["auto"] = "auto"
    """How many draft tokens of the draft model a round has if the request does not say; `auto` is as many as pay."""
    default_lookup_tokens: NonNegativeInt | Literal["auto"] = "auto"
    """How many draft tokens a round has that are looked up, if the request does not say; likewise."""
    max_k: int = Field(12, ge=1, le=31)
    """The most that `auto` chooses."""
    draft_deadline_seconds: float = Field(1.0, gt=0)
    """How long a round waits for its draft tokens."""
    start_timeout_seconds: float = Field(300, gt=0)
    """How long the start waits for the target service."""
    grace_seconds: int = Field(30, ge=0)
    """How long a stop waits for open requests."""
