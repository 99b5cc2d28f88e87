"""Settings of the gateway."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, SecretStr, ValidationInfo, field_validator

from shared.settings import Settings


class GatewaySettings(Settings):
    """How the gateway runs."""

    tokenizer: str
    """The Hugging Face folder or hub id of the target's tokenizer."""
    chat_template: str = ""
    """A file with the template of chats, in Jinja; empty takes the model's own."""
    tool_format: Literal[
        "auto", "hermes", "qwen3_coder", "llama3_json", "mistral", "mistral_v11", "deepseek_v3", "deepseek_v31", "glm45"
    ] = "auto"
    """How the model writes the calls of tools; `auto` takes what its chat template and vocabulary show."""
    model_name: str = Field("outrider", pattern=r"^[^,\s][^,]*(,[^,\s][^,]*)*$")
    """What clients call the model: one name, or several with commas between them."""
    any_model_name: bool = False
    """Whether a request may call the model anything, since clients come with names of their own."""
    host: str = "127.0.0.1"
    """The address on which it serves HTTP."""
    port: int = Field(8000, ge=0, le=65535)
    """The port on which it serves HTTP."""
    api_key_file: Path | None = None
    """A file with the keys of which requests must bring one, each on a line of its own."""
    api_key: SecretStr = Field(SecretStr(""), validate_default=True)
    """The key itself, or several, a line each; empty asks for none. A flag shows it to all on this machine."""
    cors_origins: str = "local"
    """The origins whose pages a browser lets ask, with commas between them: `local` for this machine's, `*` for any."""
    max_connections: int = Field(2048, ge=1)
    """How many connections may be open; one more closes the longest idle, or is refused if all are being answered."""
    idle_timeout_seconds: float = Field(620, gt=0)
    """How many seconds a connection may lie idle: longer than the load balancer before it lets one, 600 at most."""
    head_timeout_seconds: float = Field(10, gt=0)
    """How many seconds a request's line and headers may take to arrive."""
    body_timeout_seconds: float = Field(60, gt=0)
    """How many seconds a request's body may take to arrive."""
    reader_timeout_seconds: float = Field(30, gt=0)
    """How many seconds a client may leave unread what was sent, or read less than 1 KiB a second of it."""
    request_timeout_seconds: float = Field(3600, gt=0)
    """How many seconds a request may take as a whole."""
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
    max_body_bytes: int = Field(2**24, ge=1)
    """The most bytes of a request's body."""
    max_json_values: int = Field(100_000, ge=1)
    """The most JSON values of a request's body, not counting as many token ids as fit the context."""
    max_choices: int = Field(1024, ge=1)
    """The most choices of a request: its prompts times `n`."""
    max_waiting_work: int = Field(1024, ge=0)
    """How many requests may wait to be read and tokenized, for which there are as many threads as cores."""
    open_timeout_seconds: float = Field(60, gt=0)
    """How many seconds a session waits for a target to take it, beside the wait for a slot."""
    first_token_timeout_seconds: float = Field(300, gt=0)
    """How many seconds a session hears nothing of its first round, which runs its prompt, before it tries another
    target; one of an older release says nothing before its end."""
    round_timeout_seconds: float = Field(60, gt=0)
    """How many seconds a session waits for any other round before it tries another target."""
    start_timeout_seconds: float = Field(300, gt=0)
    """How many seconds startup waits for the target service."""
    grace_seconds: int = Field(30, ge=0)
    """How many seconds shutdown waits for open requests."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names of the model; the first is the one that it is counted by."""
        return tuple(self.model_name.split(","))

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys of which requests must bring one; none asks for none."""
        return tuple(self.api_key.get_secret_value().splitlines())

    @field_validator("api_key")
    @classmethod
    def _keys_of_file(cls, given: SecretStr, info: ValidationInfo) -> SecretStr:
        text, path = given.get_secret_value(), info.data.get("api_key_file")
        if path:
            if text:
                raise ValueError("there is api_key_file, too")
            try:
                text = path.read_bytes().decode("latin-1")
            except OSError as error:
                raise ValueError(f"api_key_file cannot be read: {error.strerror}") from error
        keys = [line.strip() for line in text.splitlines() if line.strip()]
        if (path or text) and not (keys and all(re.fullmatch("[!-~]+", key) for key in keys)):
            raise ValueError("a key must be one word of ASCII characters")
        return SecretStr("\n".join(keys))
