"""Which replicas of the target may decode."""

import asyncio
from time import monotonic

import structlog

from gateway.clients.errors import OtherReplicaError
from gateway.clients.target.identity import MODEL, WHOLE, differing
from shared.errors import InvalidFieldError
from shared.pb import specdec_pb2 as pb

log = structlog.get_logger()

KNOWN_SECONDS = 300.0  # a replica that no stream met for so long is gone, perhaps


class Replicas:
    """The replicas of one name, compared with the reference: the one that the gateway found at its start.

    New sessions open on replicas of the reference's model whose limits are no lower, since requests are checked against
    the reference's limits.
    """

    def __init__(self, *, one_identity: bool) -> None:
        """Admit all until there is a reference; with `one_identity`, all that decides tokens must be the same."""
        self.reference: pb.ModelInfo | None = None
        self.num_refused = 0
        """How many streams were given up."""
        self.turn = asyncio.Lock()
        """Held by the one session that may be what ended a replica and is tried at the next (`Replays`)."""
        self._met: dict[str, float] = {}  # when a stream last met it, by incarnation
        self._fields = WHOLE if one_identity else MODEL
        self._refused: set[bytes] = set()

    @property
    def vocab_size(self) -> int:
        """How many tokens there are; 0 while there is no reference."""
        return self.reference.vocab_size if self.reference else 0

    @property
    def known(self) -> set[str]:
        """The incarnations that streams met of late and that may decode."""
        since = monotonic() - KNOWN_SECONDS
        return {incarnation for incarnation, met in self._met.items() if met > since}

    def check(self, opened: pb.Opened) -> None:
        """Raise OtherReplicaError unless new sessions may open on the replica that describes itself so."""
        if self.reference:
            self._compare(self.reference, opened)
        if opened.incarnation:
            self._met[opened.incarnation] = monotonic()

    def _compare(self, reference: pb.ModelInfo, opened: pb.Opened) -> None:
        differ = differing(reference.identity, opened.identity, self._fields)
        if opened.max_length < reference.max_length:
            differ.append("max_length")
        if opened.max_draft_tokens < reference.max_draft_tokens:
            differ.append("max_draft_tokens")
        if differ:
            self._refuse(differ, opened.identity.SerializeToString(deterministic=True))

    def check_refusal(self, num_tokens: int, error: InvalidFieldError) -> None:
        """Raise OtherReplicaError if a replica refused `num_tokens` tokens for which the reference has room."""
        lengthy = error.field in {"prompt_token_ids", "max_tokens"}
        if lengthy and self.reference and num_tokens <= self.reference.max_length:
            self._refuse(["max_length"], b"")

    def _refuse(self, differ: list[str], identity: bytes) -> None:
        self.num_refused += 1
        key = identity + " ".join(differ).encode()
        if key not in self._refused:
            self._refused.add(key)
            log.error("target replica refused: it is not what this gateway started with", differs_in=differ)
        problem = f"those that are there differ in {', '.join(differ)}"
        raise OtherReplicaError(f"no replica of the target serves what this gateway started with: {problem}")
