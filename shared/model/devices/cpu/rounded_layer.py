"""A layer of a rotated model with weights of 8 bits, in few calls: its products, its attention, and loops over rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from shared.model.devices.cpu.attention import attend_blocks
from shared.model.devices.cpu.batch import BLOCK_ROWS, Batch
from shared.model.devices.cpu.compiled_code import row_loops
from shared.model.devices.cpu.fused_layers import FusedAttention
from shared.model.devices.cpu.kernels.int8_linear import Int8Linear
from shared.model.devices.cpu.kv_cache import SlotCache


def fuse_rounded(model: PreTrainedModel) -> None:
    """Replace the layers of a rotated model, whose linear layers are packed."""
    for number, layer in enumerate(model.model.layers):
        model.model.layers[number] = RoundedLayer(layer)


class RoundedLayer(nn.Module):
    """Attention and MLP with their norms.

    A product takes whole numbers, and gives what is still to be multiplied by each row's factor.
    """

    def __init__(self, layer: Any) -> None:
        """Take over the parts of a fused layer."""
        super().__init__()
        attention: FusedAttention = layer.self_attn
        self.layer_idx, self.scaling, self.head_dim = attention.layer_idx, attention.scaling, attention.head_dim
        self.heads, self.kv_heads = attention.heads, attention.kv_heads
        self.qkv_proj, self.o_proj = _Product(attention.qkv_proj), _Product(attention.o_proj)
        self.gate_up_proj, self.down_proj = _Product(layer.mlp.gate_up_proj), _Product(layer.mlp.down_proj)
        self.act_fn = layer.mlp.act_fn
        self.eps = np.float32(layer.input_layernorm.eps)
        norms = [norm for norm in (attention.q_norm, attention.k_norm) if norm]
        self._norms = np.array([norm.weight.detach().numpy() for norm in norms], np.float32).reshape(-1, self.head_dim)
        self._norm_eps = np.float32(norms[0].eps if norms else 0)

    def forward(
        self,
        hidden_states: torch.Tensor,  # [1, rows, hidden]
        position_embeddings: tuple[torch.Tensor, torch.Tensor],  # [1, rows, head_dim] each
        past_key_values: SlotCache,
        batch: Batch,
        **_: Any,
    ) -> torch.Tensor:
        """Compute the layer. Returns [1, rows, hidden]: the tensor that was given, which is written."""
        rows = hidden_states[0].numpy()
        num_rows = len(rows)
        qkv, factors = self.qkv_proj(num_rows, row_loops.normed_to_steps, rows, self.eps)
        blocks = self._attend(qkv, factors, position_embeddings, past_key_values, batch)
        attended, factors = self.o_proj(
            num_rows, row_loops.attended_to_steps, blocks.numpy(), batch.from_blocks.numpy()
        )
        row_loops.add(rows, attended, factors, self.o_proj.bias)
        gate_up, factors = self.gate_up_proj(num_rows, row_loops.normed_to_steps, rows, self.eps)
        gate = torch.empty(num_rows, gate_up.shape[1] // 2)
        row_loops.gates(gate_up, factors, self.gate_up_proj.bias, gate.numpy())
        gate, bias, block = self.act_fn(gate).numpy(), self.gate_up_proj.bias, self.down_proj.linear.block
        down, factors = self.down_proj(num_rows, row_loops.gated_to_steps, gate, gate_up, factors, bias, block)
        row_loops.add(rows, down, factors, self.down_proj.bias)
        return hidden_states

    def _attend(
        self,
        qkv: NDArray[np.float32],  # [rows, (heads + 2 kv_heads) * head_dim]
        factors: NDArray[np.float32],  # [rows]
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        cache: SlotCache,
        batch: Batch,
    ) -> torch.Tensor:
        """Write keys and values, and attend. Returns [blocks, kv_heads, BLOCK_ROWS * group, head_dim]."""
        cos, sin = (table[0].numpy() for table in position_embeddings)
        slots, positions, into = batch.slots.numpy(), batch.positions.numpy(), batch.into_blocks.numpy()
        keys, values = cache.layers[self.layer_idx].tensors(self.kv_heads, self.head_dim)
        queries = np.empty((len(qkv), self.heads, self.head_dim), np.float32)
        own = qkv, factors, self.qkv_proj.bias, self._norms, self._norm_eps
        row_loops.rotate(*own, cos, sin, slots, positions, queries, keys.numpy(), values.numpy())
        group = self.heads // self.kv_heads
        blocks = torch.empty(len(into) // BLOCK_ROWS, self.kv_heads, BLOCK_ROWS * group, self.head_dim)
        row_loops.to_blocks(queries, into, blocks.numpy())
        return attend_blocks(blocks, keys, values, batch, self.scaling)


class _Product:
    """A packed layer, whose inputs come as whole numbers."""

    def __init__(self, linear: Any) -> None:
        self.linear: Int8Linear = linear
        self._top = np.float32(linear.levels)
        bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias
        self.bias: NDArray[np.float32] = bias.numpy()  # [out]

    def __call__(
        self, num_rows: int, round_rows: Callable[..., None], *given: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the products of what a loop makes of these, [rows, out], and their factors, [rows]."""
        steps, factors = torch.empty(num_rows, self.linear.in_features), np.empty(num_rows, np.float32)
        round_rows(*given, self._top, steps.numpy(), factors)
        return self.linear.multiply_whole(steps).numpy(), factors
