"""Fewer and larger operations for the layers of the Llama family, within transformers' own model code.

On a CPU, half of a draft token's time goes to matrix products and half to calls of small operations; fusing leaves
about a third as many calls.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from shared.model.checkpoints.rounded_linear import RoundedLinear, joined
from shared.model.checkpoints.supported import FAMILY
from shared.model.devices.cpu.attention import attend
from shared.model.devices.cpu.batch import Batch
from shared.model.devices.cpu.kv_cache import SlotCache


def fuse(model: PreTrainedModel) -> None:
    """Replace each layer's attention, MLP and norms if the model is of the family; the weights stay the same."""
    if model.config.model_type not in FAMILY:
        return
    norm = UnitNorm if isinstance(model.lm_head, RoundedLinear) else FusedNorm  # rotated models have no weights there
    for layer in model.model.layers:
        layer.self_attn = FusedAttention(layer.self_attn)
        layer.mlp = FusedMlp(layer.mlp)
        layer.input_layernorm = norm(layer.input_layernorm)
        layer.post_attention_layernorm = norm(layer.post_attention_layernorm)
    model.model.norm = norm(model.model.norm)


class FusedAttention(nn.Module):
    """Queries, keys and values from one product; queries and keys rotated together."""

    def __init__(self, attention: Any) -> None:
        """Take over the weights of the family's attention module."""
        super().__init__()
        self.head_dim, self.scaling, self.layer_idx = attention.head_dim, attention.scaling, attention.layer_idx
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        self.heads = attention.q_proj.out_features // self.head_dim
        self.qkv_proj = joined([attention.q_proj, attention.k_proj, attention.v_proj])
        self.o_proj = attention.o_proj
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        self.q_norm, self.k_norm = [norm and FusedNorm(norm) for norm in norms]

    def forward(
        self,
        hidden_states: torch.Tensor,  # [1, rows, hidden]
        position_embeddings: tuple[torch.Tensor, torch.Tensor],  # [1, rows, head_dim] each
        past_key_values: SlotCache,
        batch: Batch,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attend. Returns [1, rows, hidden]."""
        heads = self.qkv_proj(hidden_states).unflatten(-1, (-1, self.head_dim))[0]  # [rows, heads + 2 kv_heads, dim]
        q_k, v = heads[:, : -self.kv_heads], heads[:, -self.kv_heads :]
        if self.q_norm and self.k_norm:
            q_k = torch.cat([self.q_norm(q_k[:, : self.heads]), self.k_norm(q_k[:, self.heads :])], 1)
        cos, sin = (table[0, :, None] for table in position_embeddings)  # [rows, 1, head_dim]
        left, right = q_k.chunk(2, -1)
        q_k = q_k * cos + torch.cat([-right, left], -1) * sin
        keys, values = past_key_values.layers[self.layer_idx].write(q_k[:, self.heads :], v)
        attended = attend(q_k[:, : self.heads], keys, values, batch, self.scaling)
        return self.o_proj(attended.flatten(1)[None]), None


class FusedMlp(nn.Module):
    """Gate and up projections as one product."""

    def __init__(self, mlp: Any) -> None:
        """Take over the weights of the family's MLP."""
        super().__init__()
        self.gate_up_proj = joined([mlp.gate_proj, mlp.up_proj])
        self.down_proj, self.act_fn = mlp.down_proj, mlp.act_fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [1, rows, hidden]; returns the same shape."""
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        y: torch.Tensor = self.down_proj(self.act_fn(gate) * up)
        return y


class UnitNorm(nn.Module):
    """Root mean square normalization without weights, for rotated models, in few operations.

    torch's own is made of more of them, and takes four times as long for the rows of a verify.
    """

    def __init__(self, norm: Any) -> None:
        """Take over the size."""
        super().__init__()
        self.eps, self._share = norm.variance_epsilon, 1 / norm.weight.shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., size]; returns the same shape and type."""
        length: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)  # [..., 1]
        return x * length.square_().mul_(self._share).add_(self.eps).rsqrt_().to(x.dtype)


class FusedNorm(nn.Module):
    """Root mean square normalization as one call."""

    def __init__(self, norm: Any) -> None:
        """Take over the weight."""
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [..., size of the weight]; returns the same shape."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
