"""Runs a draft model with 4-bit weights over the slots, with ONNX Runtime."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig
from typing_extensions import override

from shared.model.attention_sizes import head_dim, num_kv_heads
from shared.model.runner import Rows, Runner, Segment

PAST, PRESENT = "past_key_values", "present"


class OnnxRunner(Runner):
    """A graph that runs a whole segment in one call, and the KV cache of its sessions.

    Sessions run one by one: products with these weights are limited by arithmetic, so four rows take twice as long as
    one. Never for a target: a row's bits depend on the rows beside it. The graph returns only the last row of a
    segment, so at most one row can be wanted.
    """

    device = "cpu"
    kernel, quant = "onnxruntime-int4", "int4"
    inexact = "weights of 4 bits: the graph gives the last row of a pass and no other"
    every_row = False

    def __init__(self, graph: Path, config: PretrainedConfig, size: Callable[[int], tuple[int, int]]) -> None:
        """Open the graph, and make the cache: `size` returns its slots and their length, given a token's bytes."""
        import onnxruntime  # noqa: PLC0415 - from the extra int4

        self._vocab_size = config.vocab_size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that keep spinning while they wait would take cores from the target's pass.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in self._session.get_inputs() if tensor.name.startswith(PAST)]
        sizes = num_kv_heads(config), head_dim(config)
        self.num_slots, self.max_length = size(len(names) * math.prod(sizes) * torch.float32.itemsize)
        shape = (self.num_slots, sizes[0], self.max_length, sizes[1])
        self._cache = {name: torch.empty(shape).zero_() for name in names}  # written, so that there is memory for it
        self._bindings = [self._bound(slot) for slot in range(self.num_slots)]

    @override
    def extend(self, segments: Sequence[Segment]) -> list[Rows]:
        return [Rows([self._run(segment)[: segment.num_logits]]) for segment in segments]

    @override
    def copy(self, source: int, slot: int, num_tokens: int) -> bool:
        for states in self._cache.values():  # [slots, kv_heads, max_length, head_dim] each
            states[slot, :, :num_tokens] = states[source, :, :num_tokens]
        return True

    @override
    def clear(self, slot: int) -> None:
        for states in self._cache.values():
            states[slot] = 0

    def _run(self, segment: Segment) -> torch.Tensor:
        """Return the logits of the last row, [1, V]."""
        binding = self._bindings[segment.slot]
        logits = torch.empty(1, 1, self._vocab_size)
        end = segment.start + len(segment.token_ids)
        binding.bind_cpu_input("input_ids", np.array([segment.token_ids], np.int64))
        # The graph only uses the number of ones: here, too, a rollback is just a shorter length.
        binding.bind_cpu_input("attention_mask", np.ones((1, end), np.int64))
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.data_ptr())
        self._session.run_with_iobinding(binding)
        return logits[0]

    def _bound(self, slot: int) -> Any:
        """Return what a run over this slot reads and writes: new keys and values go to the tensors of the past ones."""
        binding = self._session.io_binding()
        for name, tensor in self._cache.items():
            past = tensor[slot : slot + 1]
            place = "cpu", 0, np.float32, past.shape, past.data_ptr()
            binding.bind_input(name, *place)
            binding.bind_output(name.replace(PAST, PRESENT), *place)
        return binding
