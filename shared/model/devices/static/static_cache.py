"""The KV cache for devices that need fixed shapes, and how the rows of a graph map to it."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import CacheLayerMixin

from shared.model.attention_sizes import head_dim, num_kv_heads
from shared.model.distributed.ranks import num_ranks


@dataclass(frozen=True)
class Batch:
    """The slots and positions of the rows of a graph. B slots, T tokens each."""

    slots: torch.Tensor  # [B] int32
    kv_heads: torch.Tensor  # [kv_heads] int32, all of them in order
    positions: torch.Tensor  # [B, T] int32; padding has the slot's scratch positions
    every_slot: bool  # whether `slots` is all slots in order, so that none needs to be selected
    num_keys: int  # each row is computed with this many keys, of which it sees those up to its own position
    mask: torch.Tensor  # [B, 1, T, num_keys] float32, 0 where a row sees a key, or -inf


class StaticLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one layer, as one batch writes and reads them."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, batch: Batch) -> None:
        """Keep the tensors, [slots, kv_heads, positions, head_dim] each, to write to them in place."""
        super().__init__()
        self.keys, self.values, self._batch = keys, values, batch
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the tensors exist from the start."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the batch's rows, and return the keys and values that they attend to.

        *_states: [B, kv_heads, T, head_dim]. Returns [B, kv_heads, num_keys, head_dim] each.
        """
        batch = self._batch
        places = batch.slots[:, None, None], batch.kv_heads[:, None], batch.positions[:, None]
        self.keys[places] = key_states
        self.values[places] = value_states
        return self._seen(self.keys), self._seen(self.values)

    def _seen(self, states: torch.Tensor) -> torch.Tensor:
        seen = states[:, :, : self._batch.num_keys]
        return seen if self._batch.every_slot else seen.index_select(0, self._batch.slots)

    def get_seq_length(self) -> int:
        """Return 0: lengths belong to the sessions."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the sizes for transformers' mask; it builds none for our attention."""
        return query_length, 0

    def get_max_length(self) -> int:
        """Return how many positions a slot has."""
        return int(self.keys.shape[2])


def cache_shape(config: PretrainedConfig, num_slots: int, num_positions: int) -> torch.Size:
    """Return the shape of a layer's keys, and also of its values, on this rank."""
    return torch.Size((num_slots, num_kv_heads(config) // num_ranks(), num_positions, head_dim(config)))


class StaticCache:
    """The tensors of all layers, allocated at once; they never move."""

    def __init__(
        self, config: PretrainedConfig, num_slots: int, num_positions: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocate the tensors."""
        shape = cache_shape(config, num_slots, num_positions)
        self.layers = [
            (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.get_text_config().num_hidden_layers)
        ]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All keys and values, [slots, kv_heads, positions, head_dim] each."""
        return [states for layer in self.layers for states in layer]

    def over(self, batch: Batch) -> Cache:
        """Return the cache that transformers' modules use in one pass; it is made in the graph and ends with it."""
        return Cache(layers=[StaticLayer(keys, values, batch) for keys, values in self.layers])
