"""How many slots the KV cache has, and how long they are: as many as asked for, or as memory allows."""

from dataclasses import dataclass, field
from typing import Self

import structlog

from shared.errors import SettingError
from shared.model.loading.memory import memory_in_all, memory_left
from shared.model.loading.turn import Turn

log = structlog.get_logger()

MOST_SLOTS, FEWEST_SLOTS = 8, 2  # where nobody says how many
GRAIN, SMALL_GRAIN = 1024, 64  # lengths are cut to multiples of one: replicas with nearly as much have the same
SMALL = 16  # a cache of no more than this part of what is left is taken at once
GIB = 2**30


@dataclass
class CacheSizing:
    """Chooses the size of a cache. Entered before weights are loaded, left when the cache has been written to.

    Slots and length that are given stay as they are. Of those that are not, there are as many slots as fit `share` of
    what is left, then as much of the model's own length: a short context fails requests, few slots make them wait.
    """

    num_slots: int | None
    max_length: int | None
    share: float
    _turn: Turn = field(default_factory=Turn)

    def __enter__(self) -> Self:
        """Begin to load a model."""
        self._turn.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Let others take what is left."""
        self._turn.__exit__()

    def longest(self, own_length: int, token_bytes: int) -> int:
        """Return a length that `choose` will not exceed, which is the same at each start."""
        if self.max_length:
            return own_length
        fitting = max(1, memory_in_all() // (token_bytes * (self.num_slots or FEWEST_SLOTS)))
        return min(own_length, 1 << fitting.bit_length())

    def choose(self, own_length: int, token_bytes: int) -> tuple[int, int]:
        """Return the slots and their length, once the weights are loaded.

        own_length: the longest that is asked for and possible; token_bytes: what a token takes in a slot. Raises
        SettingError.
        """
        if (self.num_slots or MOST_SLOTS) * own_length * token_bytes > memory_left() // SMALL:
            self._turn.take()
        left = memory_left()
        num_slots, length = self._fitting(own_length, int(left * self.share) // token_bytes)
        num_bytes = num_slots * length * token_bytes
        if num_bytes > left or not length:
            key = "max_length" if self.max_length or not self.num_slots else "num_slots"
            length = length or SMALL_GRAIN
            needs = f"{num_slots} slots of {length} tokens take {num_slots * length * token_bytes / GIB:.2f} GiB"
            raise SettingError(key, f"{needs} for keys and values, and {left / GIB:.2f} GiB of memory are left")
        say = log.warning if length < own_length else log.info
        say(
            "keys and values",
            num_slots=num_slots,
            max_length=length,
            own_length=own_length,
            bytes_per_token=token_bytes,
            bytes=num_bytes,
            bytes_left=left - num_bytes,
        )
        return num_slots, length

    def _fitting(self, own_length: int, num_tokens: int) -> tuple[int, int]:
        """Return the size of a cache for so many tokens, or a larger one where what is given is."""
        num_slots = self.num_slots or min(MOST_SLOTS, max(FEWEST_SLOTS, num_tokens // own_length))
        each = num_tokens // num_slots
        if self.max_length or each >= own_length:
            return num_slots, own_length
        return num_slots, each // GRAIN * GRAIN or each // SMALL_GRAIN * SMALL_GRAIN
