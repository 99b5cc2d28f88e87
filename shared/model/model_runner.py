"""Runs a model over the slots."""

from bisect import bisect_left
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from shared.model.kv_cache import SlotCache
from shared.model.step import KEY_GRAIN, Segment, Step

MAX_ROWS = 512  # of one forward pass


class ModelRunner:
    """A model and the KV cache of its sessions. Prefill, decode and verify are one operation: extend."""

    def __init__(self, model: PreTrainedModel, num_slots: int, max_length: int, row_counts: Sequence[int]) -> None:
        """Make the cache. A slot holds whole key grains, so that the last positions have all their keys.

        row_counts: the numbers of rows that a forward pass may have, in rising order.
        """
        self.model = model
        self.num_slots, self.max_length = num_slots, max_length
        self._row_counts = row_counts
        self._cache = SlotCache(model.config, num_slots, -(-max_length // KEY_GRAIN) * KEY_GRAIN)

    @torch.inference_mode()
    def extend(self, segments: Sequence[Segment]) -> list[torch.Tensor]:
        """Run the segments in one forward pass, and return each one's wanted logits, [num_logits, V].

        All rows together at most MAX_ROWS. What a segment's slot holds before the segment's start is its past.
        """
        step = Step.of(segments, self._pad)
        self._cache.begin(step)
        logits = self.model(
            input_ids=step.token_ids[None],
            position_ids=step.positions[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=step.kept,
            step=step,
        ).logits[0]  # [kept, V]
        return list(logits[: sum(s.num_logits for s in segments)].split([s.num_logits for s in segments]))

    def _pad(self, num_rows: int) -> int:
        index = bisect_left(self._row_counts, num_rows)
        return self._row_counts[index] if index < len(self._row_counts) else num_rows
