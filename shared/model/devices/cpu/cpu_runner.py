"""Runs a model over the slots."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT, RowCounts
from shared.model.devices.cpu.kv_cache import SlotCache
from shared.model.devices.cpu.step import KEY_GRAIN, Step
from shared.model.runner import Rows, Segment


class ModelRunner:
    """A model and the KV cache of its sessions. Prefill, decode and verify are one operation: extend."""

    device = "cpu"

    def __init__(
        self,
        model: PreTrainedModel,
        num_slots: int,
        max_length: int,
        counts: RowCounts = ANY_COUNT,
        head_counts: RowCounts = ANY_COUNT,
        *,
        kernel: str = "",
        quant: str = "none",
        inexact: str = "",
    ) -> None:
        """Make the cache. A slot holds whole key grains, so that the last positions have all their keys.

        Passes are padded to so many rows, and the output layer's likewise. The rest is told as it is.
        """
        self.model = model
        self.num_slots, self.max_length = num_slots, max_length
        self._counts, self._head_counts = counts, head_counts
        self.kernel, self.quant, self.inexact = kernel, quant, inexact
        self._dtype = model.get_input_embeddings()(torch.tensor([0])).dtype  # of activations, as they set out
        config = model.config.get_text_config()
        self._group = config.num_attention_heads // getattr(config, "num_key_value_heads", config.num_attention_heads)
        self._cache = SlotCache(model.config, num_slots, -(-max_length // KEY_GRAIN) * KEY_GRAIN)

    @torch.inference_mode()
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        """Run the segments in one forward pass, and return each one's wanted rows.

        All rows together at most MAX_ROWS. What a segment's slot holds before the segment's start is its past.
        """
        step = Step.of(segments, self._counts, self._head_counts, self._group, self._dtype)
        self._cache.begin(step)
        logits = self.model(
            input_ids=step.token_ids[None],
            position_ids=step.positions[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=step.kept,
            step=step,
        ).logits[0]  # [kept, V]
        num_rows = [segment.num_logits for segment in segments]
        return [Rows([rows]) for rows in logits[: sum(num_rows)].split(num_rows)]

    @torch.inference_mode()
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        """Copy the first keys and values of a slot to another one: what running the tokens there would give."""
        self._cache.copy(source, slot, num_tokens)
        return True
