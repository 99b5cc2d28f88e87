"""One sequence being decoded."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.model.sampling.sampler import Sampler


@dataclass(eq=False)
class Session:
    """A sequence and how much of it is in the KV cache.

    Invariant: 0 <= cached < len(token_ids) <= max_length. The last token is never cached: running it gives the logits
    of the next one. To roll back, `cached` just does not grow: whatever the slot holds beyond it is masked and later
    overwritten.
    """

    slot: int
    max_length: int
    sampler: Sampler
    """Its history is the sequence."""
    token_ids: list[int]
    cached: int = 0
    namespace: str = ""
    """Whose it is: a session of another namespace finds nothing of it."""
    forced: set[int] = field(default_factory=set)
    """The positions of tokens that it did not draw, since they were certain."""
    reused: int = field(init=False)
    """How many of its tokens other sessions had already run."""
    num_prompt: int = field(init=False)
    """How many tokens it was opened with."""

    def __post_init__(self) -> None:
        """Check the invariant."""
        self.reused, self.num_prompt = self.cached, len(self.token_ids)
        self._check()

    @property
    def begun(self) -> bool:
        """Whether any of its tokens was run, or it no longer ends as it was opened."""
        return self.cached != self.reused or len(self.token_ids) != self.num_prompt

    @property
    def ended(self) -> bool:
        """Whether the last token is a stop token, or completes the grammar."""
        return self.token_ids[-1] in self.sampler.params.stop_token_ids or self.sampler.ended

    @property
    def room(self) -> int:
        """How many more tokens fit."""
        return self.max_length - len(self.token_ids)

    def extension(self, draft_ids: Sequence[int]) -> list[int]:
        """Return the tokens to run before a round with these draft tokens can be sampled: all that are not cached."""
        return [*self.token_ids[self.cached :], *draft_ids]

    def cache(self, num_tokens: int) -> None:
        """Mark the next `num_tokens` as cached: they have been run."""
        self.cached += num_tokens
        self._check()

    def reuse(self, num_tokens: int) -> None:
        """Mark the first `num_tokens` as cached, whatever was before: another session had run them."""
        self.cached = self.reused = num_tokens
        self._check()

    def commit(self, token_ids: Sequence[int]) -> None:
        """Append the tokens of a round: the sampler drew them, and all but the last have been run."""
        self.token_ids.extend(token_ids)
        self.cached = len(self.token_ids) - 1
        self._check()

    def force(self, max_tokens: int) -> list[int]:
        """Append tokens that are certain to come next, at most so many, without running any, and return them."""
        token_ids = [] if self.ended else self.sampler.forced()[: max(0, min(max_tokens, self.room))]
        self.sampler.push(token_ids)
        self.forced.update(range(len(self.token_ids), len(self.token_ids) + len(token_ids)))
        self.token_ids.extend(token_ids)
        return token_ids

    def rewrite(self, position: int, token_ids: Sequence[int]) -> None:
        """Replace all tokens from the position on by these, at least one; whatever agrees stays cached."""
        replaced, self.token_ids[position:] = self.token_ids[position:], token_ids
        agreeing = common_prefix(replaced, token_ids)
        self.sampler.pop(replaced[agreeing:])
        self.sampler.push(token_ids[agreeing:])
        self.cached = min(self.cached, position + agreeing, len(self.token_ids) - 1)
        self.forced = {at for at in self.forced if at < position + agreeing}
        self._check()

    def _check(self) -> None:
        if not 0 <= self.cached < len(self.token_ids) <= self.max_length:
            raise RuntimeError(f"session out of bounds: {self.cached=} {len(self.token_ids)=} {self.max_length=}")


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many leading tokens agree."""
    agreeing, shorter = 0, min(len(a), len(b))
    while agreeing < shorter:  # comparing slices is many times as fast as comparing token by token
        half = (agreeing + shorter + 1) // 2
        if a[agreeing:half] == b[agreeing:half]:
            agreeing = half
        else:
            shorter = half - 1
    return agreeing
