"""Runs a model on this machine's CPU."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from typing_extensions import override

from shared.model.attention_sizes import num_kv_heads
from shared.model.devices.cpu.batch import KEY_GRAIN, Batch
from shared.model.devices.cpu.kernels.row_counts import ANY_COUNT, RowCounts
from shared.model.devices.cpu.kv_cache import SlotCache
from shared.model.runner import Rows, Runner, Segment


class CpuRunner(Runner):
    """A transformers model with our attention, and the tensors of its slots."""

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

        Passes are padded to `counts` rows, and the output layer's rows to `head_counts`. The other arguments are only
        reported.
        """
        self.model = model
        self.num_slots, self.max_length = num_slots, max_length
        self._counts, self._head_counts = counts, head_counts
        self.kernel, self.quant, self.inexact = kernel, quant, inexact
        self._dtype = model.get_input_embeddings()(torch.tensor([0])).dtype  # of the first activations
        self._group = model.config.get_text_config().num_attention_heads // num_kv_heads(model.config)
        self._cache = SlotCache(model.config, num_slots, -(-max_length // KEY_GRAIN) * KEY_GRAIN)

    @property
    def token_bytes(self) -> int:
        """How many bytes one position of a slot takes; known after the first pass."""
        return self._cache.token_bytes

    @override
    @torch.inference_mode()
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        batch = Batch.of(segments, self._counts, self._head_counts, self._group, self._dtype)
        self._cache.begin(batch)
        logits = self.model(
            input_ids=batch.token_ids[None],
            position_ids=batch.positions[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=batch.kept,
            batch=batch,
        ).logits[0]  # [kept, V]
        num_rows = [segment.num_logits for segment in segments]
        return [Rows([rows]) for rows in logits[: sum(num_rows)].split(num_rows)]

    @override
    @torch.inference_mode()
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        self._cache.copy(source, slot, num_tokens)
        return True

    @override
    @torch.inference_mode()
    def clear(self, slot: int) -> None:
        self._cache.clear(slot)
