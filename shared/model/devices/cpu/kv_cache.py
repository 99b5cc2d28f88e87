"""The KV cache: one slot per session, written by position, never cropped or moved."""

from typing import Any

import torch
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import CacheLayerMixin

from shared.model.devices.cpu.batch import KEY_GRAIN, Batch


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one layer, [slots, kv_heads, max_length, head_dim] each, written at (slot, position)."""

    is_sliding = False

    def __init__(self, num_slots: int, max_length: int) -> None:
        """Keep the sizes; the first update, which determines the other sizes and the dtype, allocates the tensors."""
        super().__init__()
        self.num_slots, self.max_length = num_slots, max_length
        self.batch: Batch

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the layer's tensors. key_states, value_states: [rows, kv_heads, head_dim].

        They are written at once: where memory is short, the start fails and not a request.
        """
        for name, states in (("keys", key_states), ("values", value_states)):
            shape = (self.num_slots, states.shape[1], self.max_length, states.shape[2])
            setattr(self, name, torch.empty(shape, dtype=states.dtype, device=states.device).zero_())
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write, as transformers' attention modules ask for it. *_states: [1, kv_heads, rows, head_dim]."""
        return self.write(key_states[0].transpose(0, 1), value_states[0].transpose(0, 1))

    def write(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the rows of the batch and return the whole tensors. keys, values: [rows, kv_heads, head_dim]."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        slots, positions = self.batch.slots, self.batch.positions  # [rows] each
        self.keys[slots, :, positions] = keys
        self.values[slots, :, positions] = values
        return self.keys, self.values

    def tensors(
        self, kv_heads: int, head_dim: int, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of these sizes, to be written elsewhere.

        Neighbouring positions may be laid out in blocks, if a grain has a whole number of them.
        """
        if not self.is_initialized:
            like = torch.empty(1, kv_heads, head_dim, dtype=dtype)
            self.lazy_initialization(like, like)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return 0: lengths belong to the sessions."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the sizes for transformers' mask; it builds none for our attention."""
        return query_length, 0

    def get_max_length(self) -> int:
        """Return how many positions a slot has."""
        return self.max_length


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """The layers of one model."""

    def __init__(self, config: PretrainedConfig, num_slots: int, max_length: int) -> None:
        """Make one layer for each of the model's."""
        num_layers = config.get_text_config().num_hidden_layers
        super().__init__(layers=[SlotLayer(num_slots, max_length) for _ in range(num_layers)])
        self._written = [0] * num_slots  # up to where each slot may hold something

    @property
    def token_bytes(self) -> int:
        """How many bytes one position of a slot takes in all layers; known once a row has been written."""
        return sum(states[0, :, 0].nbytes for layer in self.layers for states in (layer.keys, layer.values))

    def begin(self, batch: Batch) -> None:
        """Make the next updates write the rows of this batch."""
        for layer in self.layers:
            layer.batch = batch
        for span in batch.spans:
            self._written[span.slot] = max(self._written[span.slot], span.num_keys)

    def copy(self, source: int, slot: int, num_tokens: int) -> None:
        """Copy the first positions of one slot to another, and what lies behind them in their last grain."""
        num_tokens = -(-num_tokens // KEY_GRAIN) * KEY_GRAIN
        self._written[slot] = max(self._written[slot], num_tokens)
        for layer in self.layers:
            for states in (layer.keys, layer.values):  # [slots, kv_heads, max_length, head_dim] each
                states[slot, :, :num_tokens] = states[source, :, :num_tokens]

    def clear(self, slot: int) -> None:
        """Overwrite with zeros what was written to one slot: all of a long one would take a while."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[slot, :, : self._written[slot]] = layer.values[slot, :, : self._written[slot]] = 0
        self._written[slot] = 0
