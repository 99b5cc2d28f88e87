"""How much device memory a model and its slots take."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from shared.model.devices.static.graphs import GraphSizes
from shared.model.devices.static.static_cache import cache_shape
from shared.model.distributed.kv_copies import with_copies
from shared.model.distributed.parallel_layers import num_weights

GB = 10**9
TRN2_CORE_GB = 24  # of a logical core made of two physical ones: a Trainium2 has 96 GB and four of them


@dataclass(frozen=True)
class Footprint:
    """What stays on this rank's device, and the largest result of a pass, in bytes; what a compiler adds is not in."""

    weights: int
    cache: int
    logits: int

    @property
    def total(self) -> int:
        """The sum of all, in bytes."""
        return self.weights + self.cache + self.logits

    @classmethod
    def of(cls, config: PretrainedConfig, dtype: torch.dtype, sizes: GraphSizes) -> "Footprint":
        """Compute it from shapes alone."""
        config = with_copies(config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        text = config.get_text_config()
        cache = cache_shape(config, sizes.num_slots, sizes.num_positions).numel() * 2 * text.num_hidden_layers
        logits = sizes.num_slots * sizes.verify_rows * text.vocab_size
        return cls(num_weights(model) * dtype.itemsize, cache * dtype.itemsize, logits * dtype.itemsize)
