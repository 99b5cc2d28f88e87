"""Which sequence sits in which slot of the KV cache."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import inf

from shared.errors import NoFreeSlotError
from shared.model.engine.session import Session, common_prefix
from shared.model.sampling.sampler import Sampler


@dataclass
class _Slot:
    index: int
    token_ids: list[int] = field(default_factory=list)  # whose keys and values are in the slot
    namespace: str = ""

    def common(self, prompt_ids: list[int], namespace: str) -> int:
        """Return how many of the prompt's first tokens are found here by a session of this namespace."""
        return common_prefix(self.token_ids, prompt_ids) if namespace == self.namespace else 0

    def saving(self, prompt_ids: list[int], namespace: str) -> int:
        """Return the prompt's tokens found here less those it would overwrite, which another chat may need again."""
        common = self.common(prompt_ids, namespace)
        return max(0, common - (len(self.token_ids) - common))


class Slots:
    """Gives each session its own slot: the one that saves most, or else the least recently used one.

    A session that ends leaves its tokens in its slot, so the next turn of a chat starts where the last one ended.
    """

    def __init__(self, num_slots: int, max_length: int, wait_seconds: float, max_waiting: int) -> None:
        """Set up empty slots; at most `max_waiting` sessions wait for one, each for at most `wait_seconds`."""
        self.max_length = max_length
        self.num_slots = num_slots
        self._free = [_Slot(index) for index in range(num_slots)]  # least recently used first
        self._busy: dict[Session, _Slot] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._wait_seconds = wait_seconds
        self._max_waiting = max_waiting

    @property
    def num_busy(self) -> int:
        """How many slots are in use."""
        return len(self._busy)

    @property
    def num_waiting(self) -> int:
        """How many sessions wait for a slot."""
        return len(self._waiting)

    async def open(
        self, prompt_ids: list[int], sampler: Sampler, max_wait_seconds: float = inf, namespace: str = ""
    ) -> Session:
        """Start a session, waiting for a slot in order of arrival, for at most `max_wait_seconds`.

        Raises NoFreeSlotError if too many sessions already wait, or if no slot becomes free in time.
        """
        if not self._free or self._waiting:
            await self._wait_for_slot(min(self._wait_seconds, max_wait_seconds))
        slot = max(self._free, key=lambda slot: slot.saving(prompt_ids, namespace))
        self._free.remove(slot)
        cached = min(slot.common(prompt_ids, namespace), len(prompt_ids) - 1)
        session = Session(slot.index, self.max_length, sampler, list(prompt_ids), cached, namespace)
        self._busy[session] = slot
        self._wake_next()
        return session

    def close(self, session: Session) -> None:
        """End the session and free its slot, which keeps what was cached."""
        slot = self._busy.pop(session)
        slot.token_ids, slot.namespace = session.token_ids[: session.cached], session.namespace
        self._free.append(slot)
        self._wake_next()

    def _wake_next(self) -> None:
        if self._free and self._waiting and not self._waiting[0].done():
            self._waiting[0].set_result(None)

    async def _wait_for_slot(self, seconds: float) -> None:
        retry_after_ms = round(self._wait_seconds * 1000)
        if not seconds:
            raise NoFreeSlotError(f"all {self.num_slots} slots are busy", retry_after_ms)
        if len(self._waiting) >= self._max_waiting:
            raise NoFreeSlotError(f"all {self.num_slots} slots are busy and {self._max_waiting} wait", retry_after_ms)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        granted = False
        try:
            async with asyncio.timeout(seconds):
                await turn
            granted = True
        except TimeoutError:
            message = f"all {self.num_slots} slots stayed busy for {seconds} s"
            raise NoFreeSlotError(message, retry_after_ms) from None
        finally:
            self._waiting.remove(turn)
            if not granted:  # pass on a turn granted to a session that was cancelled meanwhile
                self._wake_next()
